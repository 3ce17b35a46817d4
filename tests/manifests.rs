//! The directory of manifests as a source of objects, with real files.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by a panic; clippy does not take helpers of tests for tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use kube_dnat::planner::model::{Event, Events, Object, ObjectKind};
use kube_dnat::watch::manifests::{WatchHandle, watch};
use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, channel, error::TryRecvError};

const DEADLINE: Duration = Duration::from_secs(10);

struct Followed {
    folder: TempDir,
    events: Receiver<Events>,
    listed: BTreeSet<ObjectKind>,
    objects: BTreeMap<String, Object>,
    rejected: BTreeMap<String, String>,
    reports: Vec<String>,
    _handle: WatchHandle,
}

impl Followed {
    fn start(fill: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let (sender, events) = channel(1024);
        let handle = watch(folder.path(), "node-1".into(), sender).unwrap();
        let mut followed = Self {
            folder,
            events,
            listed: BTreeSet::new(),
            objects: BTreeMap::new(),
            rejected: BTreeMap::new(),
            reports: Vec::new(),
            _handle: handle,
        };
        followed.until("the first list", |followed| {
            followed.listed.len() == ObjectKind::ALL.len()
        });
        followed
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes in what was reported so far.
    fn take(&mut self) {
        loop {
            match self.events.try_recv() {
                Ok(events) => events
                    .into_iter()
                    .for_each(|event| self.handle_event(event)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => panic!("the thread ended"),
            }
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Listed(kind) => {
                self.listed.insert(kind);
            }
            Event::Interrupted(..) | Event::NodeMissing(_) | Event::OwnAddresses(_) => {
                unreachable!("a directory knows nothing of them")
            }
            Event::Update(update) => {
                let key = update.key.to_string();
                let sign = if update.object.is_some() { '+' } else { '-' };
                self.reports.push(format!("{sign}{key}"));
                let rejected: Vec<_> = update.rejected.iter().map(ToString::to_string).collect();
                self.rejected.insert(key.clone(), rejected.join("; "));
                match update.object {
                    Some(object) => self.objects.insert(key, object),
                    None => self.objects.remove(&key),
                };
            }
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        loop {
            self.take();
            if done(self) {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "not in time: {what}; {:?}",
                self.reports
            );
            std::thread::yield_now();
        }
    }

    #[track_caller]
    fn until_services(&mut self, names: &[&str]) {
        let keys: BTreeSet<_> = names
            .iter()
            .map(|name| format!("Service shop/{name}"))
            .collect();
        self.until(&format!("{names:?}"), |followed| {
            followed.objects.keys().cloned().collect::<BTreeSet<_>>() == keys
        });
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  clusterIP: 10.96.0.7\n  ports: [{{port: {port}}}]\n"
    )
}

#[test]
fn a_file_that_is_written_renamed_or_removed_takes_effect() {
    let mut followed = Followed::start(|folder| {
        fs::write(folder.join("cart.yaml"), service("cart", 80)).unwrap();
        fs::write(folder.join("notes.txt"), service("not-this", 80)).unwrap();
    });
    followed.until_services(&["cart"]);
    followed.write("web.yml", &service("web", 80));
    followed.until_services(&["cart", "web"]);
    // Replaced by rename, as editors do.
    followed.write(
        "new.tmp",
        &(service("cart", 81) + "---\n" + &service("tea", 80)),
    );
    fs::rename(followed.path("new.tmp"), followed.path("cart.yaml")).unwrap();
    followed.until_services(&["cart", "tea", "web"]);
    fs::remove_file(followed.path("web.yml")).unwrap();
    followed.until_services(&["cart", "tea"]);
    fs::rename(followed.path("cart.yaml"), followed.path("cart.off")).unwrap();
    followed.until_services(&[]);
}

#[test]
fn the_changes_of_one_file_take_effect_together() {
    let mut followed = Followed::start(|_| {});
    let names: Vec<_> = (0..100).map(|n| format!("tea-{n}")).collect();
    let services: Vec<_> = names.iter().map(|name| service(name, 80)).collect();
    followed.write("tea.yaml", &services.join("---\n"));
    let events = followed.events.blocking_recv().unwrap();
    assert_eq!(events.len(), names.len());
    for event in events {
        followed.handle_event(event);
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    followed.until_services(&names);
}

#[test]
fn folders_appear_and_disappear_with_their_files() {
    let mut followed = Followed::start(|_| {});
    fs::create_dir(followed.path("team")).unwrap();
    followed.write("team/cart.yaml", &service("cart", 80));
    followed.until_services(&["cart"]);
    fs::create_dir(followed.path("team/deep")).unwrap();
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1",
        "kind": "Service", "metadata": {"name": "tea", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 80}]}}]}"#;
    followed.write("team/deep/list.json", json);
    followed.until_services(&["cart", "tea"]);
    fs::rename(followed.path("team/deep"), followed.path("elsewhere")).unwrap();
    followed.write("elsewhere/more.yaml", &service("web", 80));
    followed.until_services(&["cart", "tea", "web"]);
    fs::remove_dir_all(followed.path("team")).unwrap();
    followed.until_services(&["tea", "web"]);
}

#[test]
fn a_file_is_not_read_before_its_writer_closes_it() {
    let mut followed = Followed::start(|folder| {
        fs::write(folder.join("cart.yaml"), service("cart", 80)).unwrap();
    });
    let mut file = File::create(followed.path("cart.yaml")).unwrap();
    file.write_all(b"apiVersion: v1\nkind: Service\n").unwrap();
    file.sync_all().unwrap();
    // Something else happens and is reported meanwhile.
    followed.write("web.yaml", &service("web", 80));
    followed.until_services(&["cart", "web"]);
    file.write_all(b"metadata: {name: tea, namespace: shop}\n")
        .unwrap();
    file.write_all(b"spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}\n")
        .unwrap();
    drop(file);
    followed.until_services(&["tea", "web"]);
}

#[test]
fn a_file_that_does_not_parse_keeps_its_last_good_content() {
    let mut followed = Followed::start(|folder| {
        fs::write(folder.join("cart.yaml"), service("cart", 80)).unwrap();
    });
    followed.write("cart.yaml", "apiVersion: v1\nkind: [Service\n");
    followed.write("web.yaml", &service("web", 80));
    followed.until_services(&["cart", "web"]);
    followed.write("cart.yaml", &service("tea", 80));
    followed.until_services(&["tea", "web"]);
}

#[test]
fn a_malformed_object_does_not_affect_the_others() {
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: broken, namespace: shop}\n\
                  spec: {ports: none}\n---\n";
    let mut followed = Followed::start(|folder| {
        fs::write(
            folder.join("all.yaml"),
            broken.to_owned() + &service("cart", 80),
        )
        .unwrap();
    });
    followed.until_services(&["cart"]);
    assert!(
        !followed.rejected["Service shop/broken"].is_empty(),
        "{:?}",
        followed.rejected
    );
}

#[test]
fn the_first_of_two_files_with_one_object_takes_precedence_until_it_is_removed() {
    let mut followed = Followed::start(|folder| {
        fs::write(folder.join("a.yaml"), service("cart", 80)).unwrap();
        fs::write(folder.join("b.yaml"), service("cart", 81)).unwrap();
    });
    let port = |followed: &Followed| {
        let Object::Service(service) = &followed.objects["Service shop/cart"] else {
            panic!("a Service is no Service");
        };
        service.ports[0].port
    };
    assert_eq!(port(&followed), 80);
    let said = &followed.rejected["Service shop/cart"];
    assert!(said.contains("a.yaml") && said.contains("b.yaml"), "{said}");
    fs::remove_file(followed.path("a.yaml")).unwrap();
    followed.until("the other counts", |followed| port(followed) == 81);
    assert!(
        !followed
            .reports
            .iter()
            .any(|report| report.starts_with('-')),
        "{:?}",
        followed.reports
    );
}

#[test]
fn a_mounted_config_map_is_followed_as_it_is_swapped() {
    // The kubelet's AtomicWriter: FILE -> ..data/FILE, ..data -> ..TIMESTAMP, swapped by rename.
    let fill = |folder: &Path, name: &str, text: &str| {
        let version = folder.join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("cart.yaml"), text).unwrap();
        symlink(name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    let mut followed = Followed::start(|folder| {
        fill(folder, "..2026_1", &service("cart", 80));
        symlink("..data/cart.yaml", folder.join("cart.yaml")).unwrap();
    });
    followed.until("the object", |followed| !followed.objects.is_empty());
    followed.until_services(&["cart"]);
    fill(followed.folder.path(), "..2026_2", &service("tea", 80));
    fs::remove_dir_all(followed.path("..2026_1")).unwrap();
    followed.until_services(&["tea"]);
}

#[test]
fn an_unchanged_content_is_not_reported() {
    let mut followed = Followed::start(|folder| {
        fs::write(folder.join("cart.yaml"), service("cart", 80)).unwrap();
    });
    followed.until_services(&["cart"]);
    let before = followed.reports.len();
    followed.write(
        "cart.yaml",
        &format!("# a comment\n{}", service("cart", 80)),
    );
    followed.write("web.yaml", &service("web", 80));
    followed.until_services(&["cart", "web"]);
    assert_eq!(followed.reports[before..], ["+Service shop/web"]);
}
