use std::time::{Duration, Instant};

use tidings_testkit::control_plane::{Kubectl, Output};
use tidings_testkit::proxies::{Call, Treatment};
use tidings_testkit::{ApiProxy, ControlPlane};

struct Behind {
    plane: &'static ControlPlane,
    proxy: ApiProxy,
    kubectl: Kubectl,
}

impl Behind {
    async fn new(name: &str) -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        let proxy = ApiProxy::start(plane).await.unwrap();
        let kubeconfig = plane.kubeconfig_through(name, proxy.address(), proxy.ca_file(), None).unwrap();
        Self { plane, proxy, kubectl: Kubectl::new(&kubeconfig) }
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.kubectl.run(args).await.unwrap()
    }

    async fn exists(&self, name: &str) -> bool {
        self.plane.kubectl(&["get", "configmap", name]).await.unwrap().success
    }
}

fn creates_a_config_map(call: &Call) -> bool {
    call.method == "POST" && call.path.ends_with("/configmaps")
}

#[tokio::test]
async fn requests_pass_over_http_2_with_the_permissions_of_the_client() {
    let behind = Behind::new("proxied").await;
    behind.run(&["create", "configmap", "proxied"]).await.ok().unwrap();
    assert!(behind.exists("proxied").await);
    let who = behind.run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await.ok().unwrap();
    assert_eq!(who, "admin");
    assert!(behind.proxy.treated()["passed"] >= 2);
}

#[tokio::test]
async fn a_refused_request_does_not_reach_the_api_server_and_a_lost_answer_hides_what_was_done() {
    let behind = Behind::new("treated").await;
    behind.proxy.treat_next(1, Treatment::Answer(409), creates_a_config_map);
    let refused = behind.run(&["create", "configmap", "refused"]).await;
    assert!(!refused.success && refused.stderr.contains("refused by the proxy"), "{}", refused.stderr);
    assert!(!behind.exists("refused").await);
    behind.proxy.treat_next(1, Treatment::LoseAnswer, creates_a_config_map);
    assert!(!behind.run(&["create", "configmap", "lost"]).await.success);
    assert!(behind.exists("lost").await);
    behind.run(&["create", "configmap", "later"]).await.ok().unwrap();
    let treated = behind.proxy.treated();
    assert_eq!((treated["refused"], treated["response lost"]), (1, 1));
}

#[tokio::test]
async fn a_late_request_arrives_although_its_client_is_gone() {
    let behind = Behind::new("late").await;
    behind.proxy.treat_next(1, Treatment::Late(Duration::from_secs(3)), creates_a_config_map);
    assert!(!behind.run(&["create", "configmap", "late", "--request-timeout=1s"]).await.success);
    assert!(!behind.exists("late").await);
    let began = Instant::now();
    while !behind.exists("late").await {
        assert!(began.elapsed() < Duration::from_secs(30), "the late request never arrived");
    }
}

#[tokio::test]
async fn a_list_breaks_off_and_a_watch_runs_live_or_expires() {
    let behind = Behind::new("listed").await;
    behind.run(&["create", "configmap", "listed"]).await.ok().unwrap();
    behind.proxy.treat_next(1, Treatment::BreakOff(20), |call| call.is_list_of("configmaps"));
    let broken = behind.run(&["get", "configmaps"]).await;
    assert!(!broken.success, "{}", broken.stdout);
    behind.proxy.pass();
    let watch = ["get", "--raw", "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=2"];
    let watched = behind.run(&watch).await.ok().unwrap();
    assert!(watched.contains("ADDED"), "{watched}");
    behind.proxy.treat(|call| if call.is_watch() { Treatment::Expire } else { Treatment::Pass });
    let expired = behind.run(&watch).await.ok().unwrap();
    assert!(expired.contains("\"code\":410"), "{expired}");
}
