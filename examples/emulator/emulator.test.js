// Starts the emulator, uses it as a program under test would, and asserts on what it was asked.
//
//     node --test examples/emulator/emulator.test.js
'use strict';

const assert = require('node:assert');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const readline = require('node:readline');
const { after, before, test } = require('node:test');

const PROGRAM = process.env.IOT_ENROLL_PROGRAM ?? 'iot-enroll';
const VERSION = 'api-version=2022-07-31';

/** The code under test: renames a device, and tries again once if the service fails. */
async function rename(endpoint, token, deviceId, name) {
    const headers = { Authorization: token, 'Content-Type': 'application/merge-patch+json' };
    const options = { method: 'PATCH', headers, body: JSON.stringify({ displayName: name }) };
    const url = `${endpoint}/api/devices/${deviceId}?${VERSION}`;
    let response = await fetch(url, options);
    if (response.status === 503) {
        response = await fetch(url, options);
    }
    assert.ok(response.ok, `status ${response.status}`);
    return response.json();
}

let child;
let emulator;

before(async () => {
    const seeds = path.join(__dirname, 'seeds.json');
    const words = ['emulator', '--import', seeds, '--rate', '1000', '--fault', '503,method=PATCH'];
    child = spawn(PROGRAM, words, { stdio: ['ignore', 'pipe', 'ignore'] });
    // It serves once it has printed this line.
    const [line] = await once(readline.createInterface({ input: child.stdout }), 'line');
    emulator = JSON.parse(line);
});

after(async () => {
    child.kill();
    await once(child, 'exit');
});

test('a device is renamed although the service fails once', async () => {
    const { endpoint, token } = emulator;
    const device = await rename(endpoint, token, 'thermostat-1', 'Kitchen');
    assert.strictEqual(device.displayName, 'Kitchen');
    const url = `${endpoint}/__admin/requests?path=/api/devices/thermostat-1`;
    const { requests } = await (await fetch(url, { headers: { Authorization: token } })).json();
    assert.deepStrictEqual(requests.map((request) => request.response.status), [503, 200]);
    assert.deepStrictEqual(requests[1].body, { displayName: 'Kitchen' });
    assert.strictEqual(requests[1].headers.authorization, '(redacted)');
});
