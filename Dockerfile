# The gateway with its engine, for the CPU. glibc, because the NVIDIA library is loaded at run time where there is one.
#
#   docker build -t arriero .
#   docker run --network host -v arriero:/data arriero
#   docker run -p 127.0.0.1:8000:8000 -v arriero:/data arriero serve --listen 0.0.0.0:8000 --insecure-public-bind \
#       --ollama http://host.docker.internal:11434
#
# By default it listens on the loopback address only, which is the host's with `--network host`. Inside a network of its own it has
# to listen on all addresses to be reached; the flag says that anyone who reaches the published port can then use it.
FROM rust:1.95-slim-trixie AS builder
WORKDIR /build
# The C and C++ parts: SQLite, the allocator, the cryptography.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
# The dependencies first, in a layer that only their list makes anew.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
RUN mkdir -p src bench/src tests/it \
    && for file in src/main.rs bench/src/main.rs tests/it/main.rs; do echo 'fn main() {}' > "$file"; done \
    && touch src/lib.rs bench/src/lib.rs \
    && cargo build --profile dist --locked --package arriero \
    && rm -rf src bench/src tests
COPY . .
# Cargo goes by the time of the files.
RUN find src bench -name '*.rs' -exec touch {} + \
    && cargo build --profile dist --locked --package arriero \
    && mkdir /data

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=builder /build/target/dist/arriero /usr/local/bin/arriero
COPY --from=builder --chown=65532:65532 /data /data
ENV ARRIERO_DATA_DIR=/data
# The image's `nonroot`, by number, so that a cluster can see that it is not root.
USER 65532:65532
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/arriero", "health"]
ENTRYPOINT ["/usr/local/bin/arriero"]
CMD ["serve"]
