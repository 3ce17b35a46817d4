//! Plots of the figures, as SVG with logarithmic axes.

use std::path::Path;

use plotters::prelude::*;

use super::tables::Figures;

/// The name and the points of a line.
type Line = (&'static str, Vec<(f64, f64)>);

/// Plots sync time and change latency against the number of Services.
pub(crate) fn draw(figures: &Figures, directory: &Path) {
    let ours = |what, name| figures.by_services("kube-dnat", what, name);
    let proxy = |what, name| figures.by_services("kube-proxy nftables", what, name);
    let start = "process start to committed";
    let change = "API write to kernel commit";
    let in_ms = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, us)| (x, us / 1e3)).collect();
    plot(
        &directory.join("sync-time.svg"),
        "Everything committed (10 endpoints a Service)",
        &[
            ("kube-dnat, from process start", ours(start, "total_ms")),
            ("kube-dnat, kernel", ours("all from nothing", "commit_ms")),
            ("kube-proxy nftables, first sync", proxy(start, "total_ms")),
        ],
    );
    plot(
        &directory.join("change-latency.svg"),
        "One change committed (10 endpoints a Service)",
        &[
            ("kube-dnat, API write to commit", ours(change, "p50_ms")),
            (
                "kube-dnat, endpoint replaced",
                in_ms(ours("one endpoint replaced", "p50_us")),
            ),
            (
                "kube-dnat, endpoint added",
                in_ms(ours("one endpoint added or removed", "p50_us")),
            ),
            (
                "kube-proxy nftables, API write to commit",
                proxy(change, "p50_ms"),
            ),
        ],
    );
}

fn plot(path: &Path, title: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = || points().map(of);
        values().fold(f64::MAX, f64::min) / 1.5..values().fold(f64::MIN, f64::max) * 1.5
    };
    if points().next().is_none() {
        return;
    }
    let area = SVGBackend::new(path, (720, 480)).into_drawing_area();
    area.fill(&WHITE).expect("a file that can be written");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(
            range(|point| point.0).log_scale(),
            range(|point| point.1).log_scale(),
        )
        .expect("axes");
    chart
        .configure_mesh()
        .x_desc("Services")
        .y_desc("ms")
        .draw()
        .expect("a mesh");
    let measured = lines.iter().filter(|(_, points)| !points.is_empty());
    for (number, (name, points)) in measured.enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let line = LineSeries::new(points.iter().copied(), &colour).point_size(3);
        let drawn = chart.draw_series(line).expect("a line");
        drawn
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::UpperLeft)
        .draw()
        .expect("a legend");
    area.present().expect("a file that can be written");
}
