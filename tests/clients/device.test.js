// The device SDK over HTTP, with certificates and keys of iot-enroll.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { emulator, host, run, runAtApplication, deviceCertificate, derivedKey } = require('./emulator.js');

/** Registers a device at the ID scope of the application. */
function register(security, idScope = emulator.idScope) {
    return ProvisioningDeviceClient.create(host, idScope, new Http(), security).register();
}

function registerByCertificate(id, root) {
    return register(new X509Security(id, deviceCertificate(id, root)));
}

/** Asserts that the service refuses a registration with an error code. */
async function assertRefused(registration, errorCode) {
    await assert.rejects(registration, (error) => {
        assert.equal(JSON.parse(error.responseBody).errorCode, errorCode);
        assert.equal(error.response.statusCode, Math.trunc(errorCode / 1000));
        return true;
    });
}

test('a device of a verified CA is assigned to a hub', async () => {
    runAtApplication('provision', '--group', 'verified', '--root', 'Verified Root');
    const first = await registerByCertificate('certified-01', 'Verified Root');
    assert.equal(first.status, 'assigned');
    assert.equal(first.registrationId, 'certified-01');
    assert.equal(first.deviceId, 'certified-01');
    assert.match(first.assignedHub, /\.azure-devices\.net$/);

    // It registers again, with another certificate, and stays at its hub.
    const again = await registerByCertificate('certified-01', 'Verified Root');
    assert.equal(again.assignedHub, first.assignedHub);
});

test('a device under an intermediate CA is assigned', async () => {
    runAtApplication('provision', '--group', 'verified-above', '--root', 'Root Above');
    run('cert', 'intermediate', 'Plant 7', 'Root Above', '--no-pfx');
    assert.equal((await registerByCertificate('plant-01', 'Plant 7')).status, 'assigned');
});

test('a device of a CA that is not verified is refused', async () => {
    const root = run('cert', 'root', 'Unverified Root', '--no-pfx');
    runAtApplication('enrollment-group', 'create', 'unverified');
    runAtApplication('enrollment-group', 'certificate', 'set', 'unverified', '--file', root.certificate);
    await assertRefused(registerByCertificate('unverified-01', 'Unverified Root'), 401002);
});

test('a device of a CA that no group has is refused', async () => {
    run('cert', 'root', 'Unknown Root', '--no-pfx');
    await assertRefused(registerByCertificate('unknown-01', 'Unknown Root'), 401002);
});

test('a device of a disabled group is refused', async () => {
    runAtApplication('provision', '--group', 'disabled', '--root', 'Disabled Root');
    runAtApplication('enrollment-group', 'update', 'disabled', '--enabled', 'false');
    await assertRefused(registerByCertificate('disabled-01', 'Disabled Root'), 401002);
});

test('a certificate for another registration ID is refused', async () => {
    runAtApplication('provision', '--group', 'other-name', '--root', 'Other Name Root');
    const certificate = deviceCertificate('certificate-01', 'Other Name Root');
    await assertRefused(register(new X509Security('registration-01', certificate)), 401002);
});

test('a key derived from the key of a group is accepted, and no other', async () => {
    runAtApplication('enrollment-group', 'create', 'symmetric', '--attestation', 'symmetric-key');
    const group = runAtApplication('enrollment-group', 'show', 'symmetric', '--show-keys');
    const key = derivedKey(group.attestation.symmetricKey.primaryKey, 'derived-01');
    const assigned = await register(new SymmetricKeySecurityClient('derived-01', key));
    assert.equal(assigned.status, 'assigned');
    assert.equal(assigned.deviceId, 'derived-01');
    await assertRefused(register(new SymmetricKeySecurityClient('derived-02', key)), 401000);
});

test('an unknown ID scope is refused', async () => {
    const key = derivedKey(Buffer.from('no key of a group').toString('base64'), 'nowhere-01');
    await assertRefused(register(new SymmetricKeySecurityClient('nowhere-01', key), '0ne00000000'), 404201);
});
