//! Entries that are pulled: no more than the lane has room for, and none that cannot be sent.

use super::*;

#[tokio::test]
async fn what_is_supplied_is_pulled_by_one_pull_at_a_time_for_at_most_the_free_slots() {
    let world = World::new().await;
    world.webhook.hold(true);
    let shop = world.open_with("shop", |route| route.limits.max_in_flight = 2);
    let ids = world.memory.supply(&shop, &["e1", "e2", "e3", "e4", "e5"]);
    world.webhook.asked(2).await;
    assert_eq!(world.memory.pulls(), [2], "the lane is full");
    world.webhook.hold(false);
    for id in ids {
        assert_eq!(world.memory.written(id, 1).await, [finished(Acknowledged)]);
    }
    assert!(world.memory.pulls().iter().all(|want| *want <= 2), "{:?}", world.memory.pulls());
    assert_eq!((world.memory.most(), world.memory.in_hand()), ((1, 2), vec![]));
    let mut arrived = world.arrived(&shop);
    arrived.sort_unstable();
    assert_eq!(arrived, ["e1", "e2", "e3", "e4", "e5"]);
}

#[tokio::test]
async fn while_a_pull_is_open_no_other_begins_for_its_lane_and_other_lanes_pull() {
    let world = World::new().await;
    let [shop, other] = ["shop", "other"].map(|name| world.open(name));
    world.memory.hold_pulls(true);
    let first = world.memory.supply(&shop, &["e1"])[0];
    world.memory.pulled(1).await;
    let second = world.memory.supply(&shop, &["e2"])[0];
    let beside = world.memory.add(&shop, &["e3"]);
    world.memory.written(beside, 1).await;
    assert_eq!(world.memory.pulls().len(), 1);
    let elsewhere = world.memory.supply(&other, &["e4"])[0];
    world.memory.pulled(2).await;
    world.memory.hold_pulls(false);
    for id in [first, second, elsewhere] {
        assert_eq!(world.memory.written(id, 1).await, [finished(Acknowledged)]);
    }
}

#[tokio::test]
async fn nothing_is_pulled_for_a_closed_lane_and_what_a_lane_holds_goes_back_when_it_closes() {
    let world = World::new().await;
    let shop = named("shop");
    world.suspend(&shop);
    let ids = world.memory.supply(&shop, &["e1", "e2"]);
    world.settle("other").await;
    assert!(world.memory.pulls().is_empty());
    // The second one waits for the rate.
    let slowly = |route: &mut Route| route.limits.rate_per_minute = Some(1);
    world.open_with("shop", slowly);
    world.memory.written(ids[0], 1).await;
    assert_eq!(world.memory.in_hand(), ids[1..]);
    world.suspend(&shop);
    assert_eq!(world.memory.written(ids[1], 1).await, [Wrote::Returned]);
    world.settle("other").await;
    let pulls = world.memory.pulls().len();
    world.open_with("shop", slowly);
    world.memory.pulled(pulls + 1).await;
    world.settle("other").await;
    assert_eq!((world.memory.in_hand(), world.arrived(&shop)), (ids[1..].to_vec(), vec!["e1".into()]));
}

#[tokio::test]
async fn at_shutdown_what_was_pulled_and_not_sent_goes_back() {
    let mut world = World::new().await;
    let shop = world.open_with("shop", |route| route.limits.rate_per_minute = Some(1));
    let ids = world.memory.supply(&shop, &["e1", "e2", "e3"]);
    world.memory.written(ids[0], 1).await;
    world.settle("other").await;
    world.stop();
    world.ended().await;
    assert_eq!(world.memory.in_hand(), [0; 0]);
    let after = World::after(&world.memory).await;
    after.open("shop");
    for id in &ids[1..] {
        assert_eq!(after.memory.written(*id, 2).await, [Wrote::Returned, finished(Acknowledged)]);
    }
}

#[tokio::test]
async fn what_a_pull_brings_after_the_shutdown_began_goes_back() {
    let mut world = World::new().await;
    let slow = world.open_with("slow", |route| route.limits.rate_per_minute = Some(1));
    let idle = world.memory.supply(&slow, &["e1", "e2"]);
    world.memory.written(idle[0], 1).await;
    world.memory.hold_pulls(true);
    let shop = world.open("shop");
    let (pulls, ids) = (world.memory.pulls().len(), world.memory.supply(&shop, &["e3", "e4"]));
    world.memory.pulled(pulls + 1).await;
    world.stop();
    assert_eq!(world.memory.written(idle[1], 1).await, [Wrote::Returned], "the shutdown began");
    world.memory.hold_pulls(false);
    world.ended().await;
    assert_eq!((world.memory.in_hand(), world.arrived(&shop)), (vec![], vec![]));
    for id in ids {
        assert_eq!(world.memory.writes(id), [Wrote::Returned]);
    }
}

#[tokio::test]
async fn what_was_pulled_and_failed_during_the_shutdown_is_written_and_goes_back() {
    let mut world = World::new().await;
    world.webhook.receiver.answer_always("/shop", Behaviour::status(503));
    world.webhook.hold(true);
    let shop = world.open("shop");
    let id = world.memory.supply(&shop, &["e1"])[0];
    world.webhook.asked(1).await;
    world.stop();
    world.webhook.hold(false);
    world.ended().await;
    let writes = world.memory.writes(id);
    assert_eq!((reasons(&writes), writes.last()), (vec![ServerError], Some(&Wrote::Returned)));
    assert_eq!(world.memory.in_hand(), [0; 0]);
}

#[tokio::test]
async fn a_supply_for_a_subscriber_that_is_created_later_is_not_forgotten() {
    let world = World::new().await;
    world.update(Update::Listed(None));
    world.settle("other").await;
    let ids = world.memory.supply(&named("shop"), &["e1"]);
    world.settle("other").await;
    world.open("shop");
    assert_eq!(world.memory.written(ids[0], 1).await, [finished(Acknowledged)]);
}

#[tokio::test]
async fn a_listing_does_not_forget_what_was_pulled() {
    let world = World::new().await;
    let slowly = |route: &mut Route| route.limits.rate_per_minute = Some(1);
    let shop = world.open_with("shop", slowly);
    let ids = world.memory.supply(&shop, &["e1", "e2"]);
    world.memory.written(ids[0], 1).await;
    world.memory.list_again();
    world.settle("other").await;
    world.suspend(&shop);
    assert_eq!(world.memory.written(ids[1], 1).await, [Wrote::Returned]);
}
