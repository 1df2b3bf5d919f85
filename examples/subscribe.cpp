// Listen to a daemon from C++ with libzmq and msgpack.
// Debian, Ubuntu: apt install g++ libzmq3-dev libmsgpack-cxx-dev
// g++ -std=c++17 -DMSGPACK_NO_BOOST subscribe.cpp -o subscribe -lzmq && ./subscribe [tcp://127.0.0.1:5577]
#include <msgpack.hpp>
#include <zmq.h>

#include <cctype>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <map>
#include <string>

using Message = std::map<std::string, msgpack::object>;  // points into the msgpack::object_handle it came from

static std::string text(const msgpack::object& object) {  // what others call things may not command a terminal
  std::string plain = object.as<std::string>();
  for (char& byte : plain)
    if (!std::isprint(static_cast<unsigned char>(byte))) byte = '?';
  return plain;
}

static std::string receive(void* socket) {
  for (;;) {  // the topic, then the body, which is the last frame
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket, 0) < 0) {
      zmq_msg_close(&frame);
      continue;  // a signal came
    }
    const bool last = !zmq_msg_more(&frame);
    const std::string body(static_cast<const char*>(zmq_msg_data(&frame)), zmq_msg_size(&frame));
    zmq_msg_close(&frame);
    if (last) return body;
  }
}

int main(int count, char** words) {
  const std::string url = count > 1 ? words[1] : "tcp://127.0.0.1:5577";
  void* socket = zmq_socket(zmq_ctx_new(), ZMQ_SUB);
  const int ipv6 = url.find('[') != std::string::npos;
  zmq_setsockopt(socket, ZMQ_IPV6, &ipv6, sizeof ipv6);
  if (zmq_connect(socket, url.c_str()) != 0) {
    std::fprintf(stderr, "cannot connect to %s: %s\n", url.c_str(), zmq_strerror(zmq_errno()));
    return 1;
  }
  for (const std::string topic : {"seld1.event.", "seld1.status."})  // also: seld1.frame., ten times a second
    zmq_setsockopt(socket, ZMQ_SUBSCRIBE, topic.data(), topic.size());

  for (int silent = 0;;) {  // how often 3 s
    zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
    if (zmq_poll(&item, 1, 3000) == 0) {  // a status comes every second
      if (++silent == 1) std::fprintf(stderr, "nothing heard from %s for 3 s: is the daemon running?\n", url.c_str());
      if (silent % 4 == 0) {  // libzmq gives up where it was refused
        zmq_disconnect(socket, url.c_str());
        zmq_connect(socket, url.c_str());
      }
      continue;
    }
    silent = 0;
    const std::string bytes = receive(socket);
    try {
      const msgpack::object_handle body = msgpack::unpack(bytes.data(), bytes.size());
      Message message = body->as<Message>();
      const std::string type = message["type"].as<std::string>();
      if (type == "event") {
        std::printf("%.1f  %s  %s  %+.0f deg, %+.0f deg up\n", message["t_capture_ns"].as<std::int64_t>() / 1e9,
                    text(message["phase"]).c_str(), text(message["class"]).c_str(),
                    message["azimuth_deg"].as<double>(), message["elevation_deg"].as<double>());
      } else if (message["state"].as<std::string>() != "running") {
        std::printf("%s %s %s\n", text(message["source"]).c_str(), text(message["state"]).c_str(),
                    text(message["why"]).c_str());
      }
    } catch (const std::exception& error) {  // of msgpack: it is no message of a daemon
      std::fprintf(stderr, "passed over: %s\n", error.what());
    }
    std::fflush(stdout);
  }
}
