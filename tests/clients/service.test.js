// The service SDK: every operation that it has on enrollment groups, individual enrollments and registrations.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { emulator, host, deviceCertificate, derivedKey, verifiedCertificate } = require('./emulator.js');

const service = ProvisioningServiceClient.fromConnectionString(emulator.dps.connectionString);

/** Asserts that the service answers with a status. */
function assertAnswered(request, status) {
    return assert.rejects(request, (error) => {
        assert.equal(error.response.statusCode, status, error.responseBody);
        return true;
    });
}

/** Registers a device at the instance. */
function register(security) {
    return ProvisioningDeviceClient.create(host, emulator.dps.idScope, new Http(), security).register();
}

function symmetricGroup(id) {
    return { enrollmentGroupId: id, attestation: { type: 'symmetricKey' } };
}

/** Collects the pages of a query. */
async function pages(query) {
    const found = [];
    do {
        // Without an argument, the promise is always for the first page.
        found.push((await query.next(query.continuationToken)).responseBody);
    } while (query.hasMoreResults);
    return found;
}

/** Runs a bulk operation. The SDK only calls back. */
function bulk(mode, enrollments) {
    return new Promise((resolve, reject) => {
        const done = (error, result) => (error ? reject(error) : resolve(result));
        service.runBulkEnrollmentOperation({ mode, enrollments }, done);
    });
}

test('an enrollment group is created, read, updated and deleted', async () => {
    const created = (await service.createOrUpdateEnrollmentGroup(symmetricGroup('Group-1'))).responseBody;
    assert.equal(created.enrollmentGroupId, 'Group-1');
    assert.equal(created.provisioningStatus, 'enabled');
    assert.ok(created.createdDateTimeUtc && created.lastUpdatedDateTimeUtc);

    // Its ID is compared without case, its etag has quotation marks, and its keys are not shown.
    const found = (await service.getEnrollmentGroup('group-1')).responseBody;
    assert.match(found.etag, /^".+"$/);
    assert.equal(found.attestation.symmetricKey?.primaryKey, undefined);

    const tags = { room: '12' };
    const changed = { ...found, provisioningStatus: 'disabled', initialTwin: { tags, properties: { desired: {} } } };
    const updated = (await service.createOrUpdateEnrollmentGroup(changed)).responseBody;
    assert.notEqual(updated.etag, found.etag);
    assert.equal(updated.provisioningStatus, 'disabled');
    assert.equal(updated.initialTwin.tags.room, '12');

    await assertAnswered(service.createOrUpdateEnrollmentGroup(changed), 412);
    await assertAnswered(service.createOrUpdateEnrollmentGroup(symmetricGroup('Group-1')), 409);
    await assertAnswered(service.deleteEnrollmentGroup(found), 412);
    await service.deleteEnrollmentGroup(updated);
    await assertAnswered(service.getEnrollmentGroup('Group-1'), 404);
});

test('the keys of a group are read, and a device registers with one', async () => {
    await service.createOrUpdateEnrollmentGroup(symmetricGroup('keys'));
    const { responseBody } = await service.getEnrollmentGroupAttestationMechanism('keys');
    assert.equal(responseBody.type, 'symmetricKey');
    const device = { id: 'derived-01', key: derivedKey(responseBody.symmetricKey.primaryKey, 'derived-01') };
    const assigned = await register(new SymmetricKeySecurityClient(device.id, device.key));
    assert.equal(assigned.status, 'assigned');

    const state = (await service.getDeviceRegistrationState('derived-01')).responseBody;
    assert.equal(state.status, 'assigned');
    assert.equal(state.assignedHub, assigned.assignedHub);
    const query = service.createEnrollmentGroupDeviceRegistrationStateQuery({ query: 'SELECT *' }, 'keys');
    assert.deepEqual((await pages(query)).flat().map((state) => state.registrationId), ['derived-01']);

    await assertAnswered(service.deleteDeviceRegistrationState('derived-01', '"stale"'), 412);
    await service.deleteDeviceRegistrationState(state);
    await assertAnswered(service.getDeviceRegistrationState('derived-01'), 404);
    // Without its record the device registers as for the first time.
    assert.equal((await register(new SymmetricKeySecurityClient(device.id, device.key))).status, 'assigned');
});

test('queries have pages', async () => {
    const ids = [1, 2, 3, 4, 5].map((number) => `paged-${number}`);
    await Promise.all(ids.map((id) => service.createOrUpdateEnrollmentGroup(symmetricGroup(id))));
    const found = await pages(service.createEnrollmentGroupQuery({ query: 'SELECT *' }, 2));
    assert.ok(found.every((page) => page.length <= 2));
    const names = found.flat().map((group) => group.enrollmentGroupId);
    assert.deepEqual(names.filter((name) => name.startsWith('paged-')).sort(), ids);
    assert.equal(new Set(names).size, names.length);

    await bulk('create', ids.map((id) => ({ registrationId: id, attestation: { type: 'symmetricKey' } })));
    const enrollments = await pages(service.createIndividualEnrollmentQuery({ query: 'SELECT *' }, 2));
    assert.ok(enrollments.length >= 3);
    assert.deepEqual(enrollments.flat().map((it) => it.registrationId).filter((id) => ids.includes(id)).sort(), ids);
});

test('an individual enrollment is created, read, updated and deleted', async () => {
    const attestation = { type: 'symmetricKey' };
    const enrollment = { registrationId: 'single-01', deviceId: 'Device-01', attestation };
    const created = (await service.createOrUpdateIndividualEnrollment(enrollment)).responseBody;
    assert.equal(created.deviceId, 'Device-01');
    await assertAnswered(service.createOrUpdateIndividualEnrollment(enrollment), 409);

    const { responseBody } = await service.getIndividualEnrollmentAttestationMechanism('single-01');
    const key = responseBody.symmetricKey.primaryKey;
    const assigned = await register(new SymmetricKeySecurityClient('single-01', key));
    assert.equal(assigned.deviceId, 'Device-01');

    const found = (await service.getIndividualEnrollment('single-01')).responseBody;
    const disabled = { ...found, provisioningStatus: 'disabled', attestation: responseBody };
    delete disabled.registrationState;
    const updated = (await service.createOrUpdateIndividualEnrollment(disabled)).responseBody;
    assert.equal(updated.provisioningStatus, 'disabled');
    await assertAnswered(register(new SymmetricKeySecurityClient('single-01', key)), 401);
    await assertAnswered(service.deleteIndividualEnrollment('single-01', found.etag), 412);
    await service.deleteIndividualEnrollment('single-01', updated.etag);
    await assertAnswered(service.getIndividualEnrollment('single-01'), 404);
});

test('a bulk operation reports each enrollment that failed', async () => {
    const attestation = { type: 'symmetricKey' };
    const enrollments = ['bulk-1', 'bulk-2'].map((registrationId) => ({ registrationId, attestation }));
    assert.deepEqual((await bulk('create', enrollments)).errors ?? [], []);
    const again = await bulk('create', [...enrollments, { registrationId: 'bulk-3', attestation }]);
    assert.equal(again.isSuccessful, false);
    assert.deepEqual(again.errors.map((error) => error.registrationId).sort(), ['bulk-1', 'bulk-2']);

    const found = (await service.getIndividualEnrollment('bulk-3')).responseBody;
    const disabled = { ...found, provisioningStatus: 'disabled' };
    assert.equal((await bulk('updateIfMatchETag', [disabled])).isSuccessful, true);
    assert.equal((await service.getIndividualEnrollment('bulk-3')).responseBody.provisioningStatus, 'disabled');
    assert.equal((await bulk('updateIfMatchETag', [disabled])).isSuccessful, false, 'the etag is stale now');
    assert.equal((await bulk('update', [{ ...found, provisioningStatus: 'enabled' }])).isSuccessful, true);
    assert.equal((await service.getIndividualEnrollment('bulk-3')).responseBody.provisioningStatus, 'enabled');

    assert.equal((await bulk('delete', enrollments)).isSuccessful, true);
    await assertAnswered(service.getIndividualEnrollment('bulk-1'), 404);

    const many = Array.from({ length: 11 }, (_, number) => ({ registrationId: `many-${number}`, attestation }));
    await assertAnswered(bulk('create', many), 400);
});

test('an X.509 enrollment admits the certificate that it names', async () => {
    const certificate = deviceCertificate('leaf-01');
    const clientCertificates = { primary: { certificate: certificate.cert } };
    const attestation = { type: 'x509', x509: { clientCertificates } };
    const created = await service.createOrUpdateIndividualEnrollment({ registrationId: 'leaf-01', attestation });
    assert.match(created.responseBody.attestation.x509.clientCertificates.primary.info.sha1Thumbprint, /^[0-9A-F]{40}$/i);
    assert.equal((await register(new X509Security('leaf-01', certificate))).status, 'assigned');
    await assertAnswered(register(new X509Security('leaf-01', deviceCertificate('leaf-01'))), 401);
});

test('an X.509 group admits devices only while its CA is verified and it is enabled', async () => {
    const certificate = verifiedCertificate('service-root', 'Service Root');
    const attestation = { type: 'x509', x509: { caReferences: { primary: certificate } } };
    const enrollmentGroup = { enrollmentGroupId: 'x509-group', attestation };
    await service.createOrUpdateEnrollmentGroup(enrollmentGroup);
    const device = new X509Security('under-root-01', deviceCertificate('under-root-01', 'Service Root'));
    assert.equal((await register(device)).status, 'assigned');

    const found = (await service.getEnrollmentGroup('x509-group')).responseBody;
    assert.deepEqual(found.attestation.x509.caReferences.primary, certificate);
    await service.createOrUpdateEnrollmentGroup({ ...found, provisioningStatus: 'disabled' });
    await assertAnswered(register(device), 401);

    await service.deleteEnrollmentGroup('x509-group');
    await assertAnswered(register(device), 401);
});

test('a wrong key and a wrong policy are refused', async () => {
    const otherKey = Buffer.from('not the key of the policy').toString('base64');
    const forged = emulator.dps.connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${otherKey}`);
    await assertAnswered(ProvisioningServiceClient.fromConnectionString(forged).getEnrollmentGroup('x'), 401);
    const renamed = emulator.dps.connectionString.replace(/SharedAccessKeyName=[^;]*/, 'SharedAccessKeyName=nobody');
    await assertAnswered(ProvisioningServiceClient.fromConnectionString(renamed).getEnrollmentGroup('x'), 401);
});

test('a token of Microsoft Entra is accepted', async () => {
    const token = emulator.arm.token.replace(/^Bearer /, '');
    const credential = { getToken: () => Promise.resolve({ token, expiresOnTimestamp: Date.now() + 3600_000 }) };
    const client = ProvisioningServiceClient.fromTokenCredential(host, credential);
    await client.createOrUpdateEnrollmentGroup(symmetricGroup('by-entra'));
    assert.equal((await client.getEnrollmentGroup('by-entra')).responseBody.enrollmentGroupId, 'by-entra');
    await client.deleteEnrollmentGroup('by-entra');
});
