// The device SDK over MQTT, on TCP and on WebSocket, with certificates and keys of iot-enroll.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { errors } = require('azure-iot-common');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt, MqttWs } = require('azure-iot-provisioning-device-mqtt');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { emulator, host, run, runAtApplication, deviceCertificate, derivedKey } = require('./emulator.js');

// Each transport with its host. That of WebSocket appends `:443/$iothub/websocket` to it, which becomes a query here, so that
// the port is that of the emulator.
const transports = {
    tcp: { Transport: Mqtt, host: emulator.mqtt },
    websocket: { Transport: MqttWs, host: `${host}/$iothub/websocket?` },
};

/** Registers a device over each transport, one after the other, and passes what it comes to, and its ID, to a function. */
async function overEachTransport(id, security, check, idScope = emulator.idScope) {
    for (const [name, { Transport, host }] of Object.entries(transports)) {
        const number = `${id}-${name}`;
        const client = ProvisioningDeviceClient.create(host, idScope, new Transport(), await security(number));
        await check(client.register(), number);
    }
}

/** Checks that a registration ends with an assignment. */
async function assertAssigned(registration, id) {
    const assigned = await registration;
    assert.equal(assigned.status, 'assigned');
    assert.equal(assigned.deviceId, id);
    assert.match(assigned.assignedHub, /\.azure-devices\.net$/);
    assert.equal(runAtApplication('device', 'show', id).provisioned, true);
}

/** Returns a check that the service refuses a registration with an error code. */
function refused(errorCode, kind = errors.UnauthorizedError) {
    return (registration) =>
        assert.rejects(registration, (error) => {
            assert.ok(error instanceof kind, error);
            assert.equal(error.result.errorCode, errorCode);
            return true;
        });
}

const byCertificate = (root) => (id) => new X509Security(id, deviceCertificate(id, root));

test('a device of a verified CA is assigned to a hub', async () => {
    runAtApplication('provision', '--group', 'verified', '--root', 'Verified Root');
    await overEachTransport('certified', byCertificate('Verified Root'), assertAssigned);
});

test('a key derived from the key of a group is accepted, and no other', async () => {
    runAtApplication('enrollment-group', 'create', 'symmetric', '--attestation', 'symmetric-key');
    const group = runAtApplication('enrollment-group', 'show', 'symmetric', '--show-keys');
    const key = (id) => derivedKey(group.attestation.symmetricKey.primaryKey, id);
    await overEachTransport('derived', (id) => new SymmetricKeySecurityClient(id, key(id)), assertAssigned);
    await overEachTransport('other-key', (id) => new SymmetricKeySecurityClient(id, key('another')), refused(401000));
});

test('a device of a CA that no group has is refused', async () => {
    run('cert', 'root', 'Unknown Root', '--no-pfx');
    await overEachTransport('unknown', byCertificate('Unknown Root'), refused(401002));
});

test('a certificate for another registration ID is refused', async () => {
    runAtApplication('provision', '--group', 'other-name', '--root', 'Other Name Root');
    const another = (id) => new X509Security(id, deviceCertificate(`another-${id}`, 'Other Name Root'));
    await overEachTransport('registration', another, refused(401002));
});

test('a device of a disabled group is refused', async () => {
    runAtApplication('provision', '--group', 'disabled', '--root', 'Disabled Root');
    runAtApplication('enrollment-group', 'update', 'disabled', '--enabled', 'false');
    await overEachTransport('disabled', byCertificate('Disabled Root'), refused(401002));
});

test('an unknown ID scope is refused', async () => {
    const key = derivedKey(Buffer.from('no key of a group').toString('base64'), 'nowhere');
    const security = (id) => new SymmetricKeySecurityClient(id, key);
    await overEachTransport('nowhere', security, refused(404201, errors.DeviceNotFoundError), '0ne00000000');
});
