# Builds one static binary with the public certificate authorities compiled in. Use the Rust version in rust-toolchain.toml.
FROM rust:1.95.0-bookworm AS build
WORKDIR /tidings
COPY . .
# Names the host's target triple, so that the flags apply to the binary and not to build scripts.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --bin tidings --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && cp target/*/release/tidings /usr/local/bin/tidings

FROM scratch
COPY --from=build /usr/local/bin/tidings /tidings
USER 65532:65532
ENTRYPOINT ["/tidings"]
CMD ["run"]
