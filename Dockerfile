FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# Tests and benchmarks stay outside of the image; their targets are named in Cargo.toml and must exist.
RUN mkdir -p tests/it benches/load \
    && echo 'fn main() {}' | tee tests/it/main.rs > benches/load/main.rs
RUN cargo build --release --locked --bin justonce

FROM debian:bookworm-slim
# A new volume takes the owner of the folder that it covers.
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin justonce \
    && install -d -o justonce -g justonce -m 0700 /data /blobs \
    && install -d -o justonce -g justonce -m 0755 /keys
# What encrypted connections to Redis trust, unless JUSTONCE_REDIS_CA names others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/justonce /usr/local/bin/justonce
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/justonce/
USER justonce
WORKDIR /data
VOLUME /data
ENV JUSTONCE_LISTEN=0.0.0.0:8080 \
    JUSTONCE_DATA=/data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["justonce", "healthcheck"]
ENTRYPOINT ["justonce"]
CMD ["serve"]
