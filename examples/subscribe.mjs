// Listen to a daemon from Node: npm install, then node subscribe.mjs [tcp://127.0.0.1:5577]
import { decode } from "@msgpack/msgpack";
import { Subscriber } from "zeromq";

const socket = new Subscriber();
socket.connect(process.argv[2] ?? "tcp://127.0.0.1:5577");
socket.subscribe("seld1.event.", "seld1.status.");

for await (const [topic, body] of socket) {
  // UNIX nanoseconds do not fit into a number of JavaScript: read 64-bit integers as BigInt.
  const message = decode(body, { useBigInt64: true });
  if (message.type === "event") {
    const time = new Date(Number(message.t_capture_ns / 1000000n)).toISOString();
    const place = `${message.azimuth_deg.toFixed(0)} deg, ${message.elevation_deg.toFixed(0)} deg up`;
    console.log(`${time}  ${message.phase}  ${message.class}  ${place}`);
  } else if (message.state !== "running") {
    console.log(`${message.source} ${message.state} ${message.why}`);
    break;
  }
}
