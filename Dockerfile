# One static binary, with the public certificate authorities compiled in. The Rust version is the one in rust-toolchain.toml.
FROM rust:1.95.0-bookworm AS build
WORKDIR /tidings
COPY . .
# The host's own triple, so that the flags reach the binary and not the build scripts.
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --bin tidings --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && cp target/*/release/tidings /usr/local/bin/tidings

FROM scratch
COPY --from=build /usr/local/bin/tidings /tidings
USER 65532:65532
ENTRYPOINT ["/tidings"]
CMD ["run"]
