// Publishes each line of the standard input with MQTT.js, and ends with 0 once all are acknowledged.
//
//     node tests/clients.mjs NODE_MODULES PORT CLIENT_ID TOPIC QOS IN_FLIGHT < lines

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [modules, port, clientId, topic, qos, inFlight] = process.argv.slice(2);
const mqtt = createRequire(`${modules}/`)("mqtt");
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { clientId, protocolVersion: 5 });
client.on("error", (error) => {
  console.error(String(error));
  process.exit(1);
});

const lines = createInterface({ input: process.stdin });
const open = new Set();
for await (const line of lines) {
  const sent = client.publishAsync(topic, line, { qos: Number(qos) });
  open.add(sent);
  sent.then(() => open.delete(sent));
  if (open.size >= Number(inFlight)) await Promise.race(open);
}
await Promise.all(open);
await client.endAsync();
