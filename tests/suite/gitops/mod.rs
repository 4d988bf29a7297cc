//! What `docs/gitops.md` and `examples/gitops/` show, followed step by step: health, hooks, restores, a repository.

mod archive;
mod health;
mod hooks;
mod repository;
mod restores;

use std::{fs, path::Path};

use testkit::control_plane::Output;

use crate::{cluster::root, world::World};

/// The page that these tests follow.
const PAGE: &str = "docs/gitops.md";

fn page() -> String {
    fs::read_to_string(root().join(PAGE)).unwrap()
}

/// The blocks of shell commands of a page, also those inside lists.
fn shell_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| block.lines().map(|line| format!("{}\n", line.trim())).collect()).collect()
}

/// Runs commands of a page for the namespace `shop` in the namespace of the test instead.
async fn run(world: &World, folder: &Path, commands: &str) -> Output {
    let commands = commands.replace("-n shop ", &format!("-n {} ", world.namespace));
    world.plane.admin().shell(folder, &commands).await.unwrap()
}

/// Applies the Subscriber `shop`, suspended or not, and waits until the operator has seen it.
async fn suspend(world: &World, suspended: bool) {
    world
        .subscriber("shop", |spec| {
            spec["suspend"] = suspended.into();
            spec["delivery"] = serde_json::json!({"backoff": {"initialSeconds": 1}});
        })
        .await;
    world.until_reason("shop", if suspended { "Suspended" } else { "Operational" }).await;
}
