# packaging/docker/verify.sh builds and runs this; packaging/docker/compose.yaml shows how to use it.
# A tag may name another image tomorrow: `packaging/docker/pin.sh --write` puts the digests of today here and into
# compose.yaml. Do so for what goes into production.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
# SQLite and the cryptography are built from C: a compiler is all that is needed.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY packaging/release.sh packaging/tools.sh ./packaging/
COPY migrations ./migrations
# Cargo.toml names the benches; they are not built.
COPY benches ./benches
COPY src ./src
RUN packaging/release.sh

FROM ${BASE_IMAGE}
# ca-certificates: the roots that TLS connections are checked against.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10464 sweepd \
 && useradd --uid 10464 --gid 10464 --no-create-home --home-dir /var/lib/sweepd --shell /usr/sbin/nologin sweepd \
 && install -d -m 0750 -o sweepd -g sweepd /var/lib/sweepd
COPY --from=build /src/target/release/sweepd /usr/local/bin/sweepd

# Everything that it writes is in the volume: the rest may be read-only, and root is not needed.
# Secrets that are mounted where container engines put them are found by their name.
ENV STATE_DIRECTORY=/var/lib/sweepd \
    CREDENTIALS_DIRECTORY=/run/secrets
USER 10464:10464
VOLUME /var/lib/sweepd
STOPSIGNAL SIGTERM
# Asks where http.listen has its default; with another port, or without HTTP, replace it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9464 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -t 5 line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["sweepd"]
CMD ["run"]
