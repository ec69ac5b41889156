// What the tests of the SDKs share: the emulator's first line, and the program that makes certificates and sets up groups.
'use strict';

const { execFileSync } = require('node:child_process');
const { createHmac } = require('node:crypto');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');

const emulator = JSON.parse(process.env.IOT_ENROLL_EMULATOR);

// The SDKs always connect to port 443 of a host. The services' hosts have no port; those of the emulator do.
class PortOfHost extends https.Agent {
    createConnection(options, callback) {
        const [host, port] = options.host.split(':');
        return super.createConnection({ ...options, host, port: Number(port ?? options.port) }, callback);
    }
}
https.globalAgent = new PortOfHost();

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'iot-enroll-clients-'));
process.on('exit', () => fs.rmSync(directory, { recursive: true }));

/** Runs iot-enroll in a directory of its own. Returns its JSON document. */
function run(...words) {
    const environment = {
        ...process.env,
        IOT_ENROLL_ENDPOINT: emulator.endpoint,
        IOT_ENROLL_TOKEN: emulator.token,
        IOT_ENROLL_ARM_ENDPOINT: emulator.arm?.endpoint,
        IOT_ENROLL_ARM_TOKEN: emulator.arm?.token,
        IOT_ENROLL_PFX_PASSWORD: 'unused',
    };
    const options = { cwd: directory, env: environment, encoding: 'utf8' };
    return JSON.parse(execFileSync(process.env.IOT_ENROLL_PROGRAM, [...words, '--quiet', '-o', 'json'], options));
}

/** Runs a command of iot-enroll for the application. */
function runAtApplication(...words) {
    return run(...words, '--tls-ca', emulator.caFile, '--rate', '1000000');
}

/** Runs a command of iot-enroll for the instance. */
function runAtInstance(...words) {
    return run(...words, '--dps', emulator.dps.name, '--tls-ca', emulator.caFile, '--rate', '1000000');
}

/** Reads a file that iot-enroll wrote. */
function read(file) {
    return fs.readFileSync(path.join(directory, file), 'utf8');
}

/** Issues the certificate of a device, another one each time; self-signed without an issuer. Returns it as the SDKs take it. */
function deviceCertificate(id, issuer) {
    const files = run('cert', 'device', id, ...(issuer ? [issuer] : []), '--no-pfx', '--force');
    return { cert: read(files.fullchain), key: read(files.privateKey) };
}

/** Returns the key of a device of a group with a symmetric key. */
function derivedKey(groupKey, id) {
    return createHmac('sha256', Buffer.from(groupKey, 'base64')).update(id).digest('base64');
}

/** Creates a root, and makes it a verified certificate of the instance. Returns its name there. */
function verifiedCertificate(name, root) {
    const { certificate } = run('cert', 'root', root, '--no-pfx');
    return runAtInstance('dps', 'certificate', 'set', name, '--file', certificate, '--verified').name;
}

module.exports = {
    emulator,
    host: new URL(emulator.endpoint).host,
    run,
    runAtApplication,
    runAtInstance,
    deviceCertificate,
    derivedKey,
    verifiedCertificate,
};
