//! The flags for logging. They take effect with `--config` too.

use clap::Args;
use clap_complete::ArgValueCandidates;

use super::super::completions::values;
use super::set;
use super::syntax::{SWITCH, module, switch};
use crate::config::schema::{Logging, VModule};
use crate::duration::GoDuration;

/// The flags for logging.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub(in crate::commands) struct LoggingFlags {
    /// Log verbosity: 4 for debug messages, 6 for requests to the API server, 8 for everything
    /// [default: 0].
    #[arg(short = 'v', long = "v", value_name = "N", value_parser = verbosity)]
    v: Option<u32>,

    /// Log format: text or json [default: text].
    #[arg(long, value_name = "FORMAT", add = ArgValueCandidates::new(values(["text", "json"])))]
    logging_format: Option<String>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = "PATTERN=N,...", value_delimiter = ',', value_parser = module)]
    vmodule: Vec<(String, u32)>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = "DURATION")]
    log_flush_frequency: Option<GoDuration>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    log_text_split_stream: Option<bool>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = "QUANTITY")]
    log_text_info_buffer_size: Option<String>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = SWITCH, value_parser = switch)]
    log_json_split_stream: Option<bool>,

    /// Accepted for compatibility, no effect.
    #[arg(long, value_name = "QUANTITY")]
    log_json_info_buffer_size: Option<String>,
}

/// Parses a verbosity.
fn verbosity(text: &str) -> Result<u32, String> {
    let number = text.parse();
    number.map_err(|_error| "not a whole number such as 4".to_owned())
}

impl LoggingFlags {
    /// Moves the given flags into `to`.
    pub(in crate::commands) fn apply(self, to: &mut Logging) {
        let Self {
            v,
            logging_format,
            vmodule,
            log_flush_frequency,
            log_text_split_stream,
            log_text_info_buffer_size,
            log_json_split_stream,
            log_json_info_buffer_size,
        } = self;
        set(v, &mut to.verbosity);
        set(logging_format, &mut to.format);
        set(log_flush_frequency, &mut to.flush_frequency);
        let text = &mut to.options.text;
        set(log_text_split_stream, &mut text.split_stream);
        set(log_text_info_buffer_size, &mut text.info_buffer_size);
        let json = &mut to.options.json;
        set(log_json_split_stream, &mut json.split_stream);
        set(log_json_info_buffer_size, &mut json.info_buffer_size);
        // The first match wins: flags take precedence over the file.
        let modules = vmodule
            .into_iter()
            .map(|(file_pattern, verbosity)| VModule {
                file_pattern,
                verbosity,
            });
        to.vmodule.splice(..0, modules);
    }
}
