//! Samples of the daemon and the kernel during a long run: a CSV file, and a picture of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plotters::prelude::*;

use super::kernel;
use super::node::Node;

/// The time between two samples, but for the fault that happens meanwhile.
const EVERY: Duration = Duration::from_mins(1);

/// The columns after the time, with the label of each panel.
const COLUMNS: [(&str, &str); 6] = [
    ("resident_kib", "memory of the daemon, MiB"),
    ("descriptors", "its file descriptors"),
    ("threads", "its threads"),
    ("elements", "elements of Services in the kernel"),
    ("conntrack", "conntrack entries of the node"),
    ("connections", "connections so far"),
];

/// The samples of a run.
pub(super) struct Samples {
    /// The CSV file; the picture has the same name.
    file: Option<PathBuf>,
    started: Instant,
    last: Option<Instant>,
    /// Seconds since the start, and the columns.
    rows: Vec<(f64, [f64; COLUMNS.len()])>,
}

impl Samples {
    /// Takes samples if `CHAOS_SAMPLES` names a file.
    pub(super) fn from_environment() -> Self {
        Self {
            file: env::var_os("CHAOS_SAMPLES").map(PathBuf::from),
            started: Instant::now(),
            last: None,
            rows: Vec::new(),
        }
    }

    /// Takes a sample if the last one is old, and writes the files.
    pub(super) fn take_if_due(&mut self, node: &Node<'_>, connections: usize) {
        let Some(file) = &self.file else {
            return;
        };
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let usage = node.usage();
        let namespace = &node.cluster.node.namespace;
        let elements = kernel::found(namespace).map_or(0, |found| found.len());
        let entries = namespace.run(|| {
            let path = "/proc/sys/net/netfilter/nf_conntrack_count";
            let text = fs::read_to_string(path).expect("connection tracking");
            text.trim().parse::<u32>().expect("a number")
        });
        let number = |count: usize| f64::from(u32::try_from(count).expect("a small number"));
        let row = [
            f64::from(u32::try_from(usage.resident_kib).expect("less than 4 TiB")),
            number(usage.descriptors),
            f64::from(u32::try_from(usage.threads).expect("a few threads")),
            number(elements),
            f64::from(entries),
            number(connections),
        ];
        self.rows.push((self.started.elapsed().as_secs_f64(), row));
        fs::write(file, self.csv()).expect("a writable file");
        self.draw(&file.with_extension("svg"));
    }

    fn csv(&self) -> String {
        let names = COLUMNS.map(|(name, _)| name).join(",");
        let rows = self.rows.iter().map(|(seconds, row)| {
            let row = row.map(|value| value.to_string());
            format!("{seconds:.0},{}\n", row.join(","))
        });
        format!("seconds,{names}\n{}", rows.collect::<String>())
    }

    fn draw(&self, file: &Path) {
        let area = SVGBackend::new(file, (900, 720)).into_drawing_area();
        area.fill(&WHITE).expect("a picture");
        let minutes = self.rows.last().map_or(1.0, |(seconds, _)| seconds / 60.0);
        let panels = area.split_evenly((3, 2));
        for (number, (panel, (_, label))) in panels.iter().zip(COLUMNS).enumerate() {
            let scale = if number == 0 { 1024.0 } else { 1.0 };
            let points = self
                .rows
                .iter()
                .map(|(seconds, row)| (seconds / 60.0, row[number] / scale));
            let points: Vec<_> = points.collect();
            let most = points.iter().map(|(_, value)| *value).fold(1.0, f64::max);
            let mut chart = ChartBuilder::on(panel)
                .caption(label, ("sans-serif", 16))
                .margin(8)
                .x_label_area_size(28)
                .y_label_area_size(56)
                .build_cartesian_2d(0.0..minutes.max(0.1), 0.0..most * 1.1)
                .expect("a chart");
            let mesh = chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_desc("minutes")
                .draw();
            mesh.expect("axes");
            chart
                .draw_series(LineSeries::new(points, &BLUE))
                .expect("a line");
        }
        area.present().expect("a writable file");
    }
}
