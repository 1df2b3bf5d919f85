// Listen to a daemon from Node: npm install, then node subscribe.mjs [tcp://127.0.0.1:5577]
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

process.stdout.on("error", () => process.exit()); // when its reader goes, so does it
const url = process.argv[2] ?? "tcp://127.0.0.1:5577";
const socket = new Subscriber();
socket.ipv6 = url.includes("[");
socket.connect(url);
socket.subscribe("seld1.event.", "seld1.status.");
// What others call things may not command a terminal.
const tell = (line) => console.log(line.replace(/\p{C}/gu, "?"));
// A status comes every second.
const silence = setTimeout(() => console.error(`nothing heard from ${url} for 3 s: is the daemon running?`), 3000);

for await (const [topic, body] of socket) {
  silence.refresh();
  try {
    // UNIX nanoseconds do not fit into a number of JavaScript: read 64-bit integers as BigInt.
    const message = decode(body, { useBigInt64: true });
    if (message.type === "event") {
      const time = new Date(Number(message.t_capture_ns / 1000000n)).toISOString();
      const place = `${message.azimuth_deg.toFixed(0)} deg, ${message.elevation_deg.toFixed(0)} deg up`;
      tell(`${time}  ${message.phase}  ${message.class}  ${place}`);
    } else if (message.type === "status" && message.state !== "running") {
      tell(`${message.source} ${message.state} ${message.why}`);
    }
  } catch (error) {
    console.error(`passed over: ${error.message}`); // it is no message of a daemon
  }
}
