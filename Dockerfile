# The emulator in an image without anything else. The commands for docker and podman are in docs/emulator.md.
FROM docker.io/library/rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN packaging/build program && cp target/*-unknown-linux-musl/dist/iot-enroll /iot-enroll && mkdir /data

FROM scratch
COPY --from=build /iot-enroll /iot-enroll
# The CA certificate, and the state with --state.
COPY --from=build --chown=65534:65534 /data /data
USER 65534:65534
WORKDIR /data
VOLUME /data
EXPOSE 8443 8883
HEALTHCHECK --interval=10s --timeout=6s --start-period=2s \
    CMD ["/iot-enroll", "emulator", "--check", "https://127.0.0.1:8443", "--tls-ca", "/data/ca.pem"]
ENTRYPOINT ["/iot-enroll", "emulator", "--listen", "0.0.0.0:8443", "--allow-remote", "--tls", "--ca-out", "/data/ca.pem"]
