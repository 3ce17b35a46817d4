//! The same against the real API server.

use std::path::PathBuf;

use serde_json::Value;

use super::real_server::Real;
use super::scenarios::{ApiServer, lists_and_follows, outlives_a_restart, selects};

impl ApiServer for Real {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig()
    }

    async fn apply(&self, object: Value) {
        self.apply(object).await;
    }

    async fn delete(&self, plural: &str, key: &str) {
        self.delete(plural, key).await;
    }

    async fn restart(&mut self) {
        self.restart().await;
    }
}

#[tokio::test]
#[ignore = "needs KUBEBUILDER_ASSETS: etcd and kube-apiserver"]
async fn the_real_api_server_is_listed_followed_and_outlived() {
    let mut real = Real::start("10.96.0.0/24").await;
    lists_and_follows(&real).await;
    selects(&real).await;
    outlives_a_restart(&mut real).await;
}
