//! Processes what steps print: runs workflow commands, masks secrets and writes the rest to the log.
//!
//! Lines are processed in blocks: text without commands is masked and written at once, whatever its number of lines.

use std::path::PathBuf;

use shipway_workflow::job::{AnnotationLevel, JournalBody};

use crate::{
    annotation,
    job_log::JobLog,
    mask::{MaskStream, Masker},
    problem_matcher::{self, ProblemMatchers},
    workflow_command::{self, CommandName, WorkflowCommand},
};

/// Longest line that is buffered: a program that never prints a newline must not exhaust the memory.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Limit for the annotations of a step.
const ANNOTATIONS_MAX: usize = 50;

/// The output of a runner of steps.
pub(crate) struct OutputProcessor {
    pub(crate) log: JobLog,
    pub(crate) masker: Masker,
    /// What workflow commands of the current step have set.
    pub(crate) effects: CommandEffects,
    /// Base of relative paths in commands.
    pub(crate) workspace: PathBuf,
    /// Whether `::debug::` is shown: `ACTIONS_STEP_DEBUG`.
    pub(crate) debug: bool,
    pub(crate) matchers: ProblemMatchers,
    /// The beginning of an unfinished line.
    partial: Vec<u8>,
    long: Option<LongLine>,
}

/// State within a line that is longer than [`LINE_BYTES_MAX`].
enum LongLine {
    /// Text: masked and written in pieces.
    Text(MaskStream),
    /// A workflow command. Nothing of it is written, since it may be an `add-mask`.
    Command,
}

/// What workflow commands of a step have set.
#[derive(Default)]
pub(crate) struct CommandEffects {
    pub(crate) outputs: Vec<(String, String)>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) state: Vec<(String, String)>,
    pub(crate) paths: Vec<String>,
    pub(crate) annotations: Vec<JournalBody>,
    /// Why a command failed the step.
    pub(crate) failed: Option<String>,
    /// Whether `set-env` and `add-path` are allowed: `ACTIONS_ALLOW_UNSECURE_COMMANDS`.
    pub(crate) unsecure: bool,
    /// Commands are ignored until this token is printed as a command.
    stopped: Option<String>,
    echo: bool,
}

impl OutputProcessor {
    pub(crate) fn new(log: JobLog, masker: Masker) -> Self {
        Self {
            log,
            masker,
            effects: CommandEffects::default(),
            workspace: PathBuf::new(),
            debug: false,
            matchers: ProblemMatchers::default(),
            partial: Vec::new(),
            long: None,
        }
    }

    /// The output of a background step: same log with a prefix, and both maskers share their secrets.
    pub(crate) fn for_background_step(&self, name: &str) -> Self {
        Self {
            workspace: self.workspace.clone(),
            debug: self.debug,
            matchers: self.matchers.clone(),
            ..Self::new(
                self.log.for_background_step(name),
                self.masker.for_background_step(),
            )
        }
    }

    /// Processes bytes as a program has printed them.
    pub(crate) fn process_bytes(&mut self, mut bytes: &[u8]) {
        self.masker.learn_shared_secrets();
        if !self.partial.is_empty() || self.long.is_some() {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                return self.buffer_partial(bytes);
            };
            self.buffer_partial(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        let whole = memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1);
        self.process_lines(&bytes[..whole]);
        self.buffer_partial(&bytes[whole..]);
    }

    /// Ends an unfinished line and flushes the log.
    pub(crate) fn finish(&mut self) {
        self.end_line();
        self.log.flush();
    }

    /// Begins a nested step with empty effects; returns those of the enclosing step.
    pub(crate) fn start_nested_step(&mut self) -> CommandEffects {
        std::mem::take(&mut self.effects)
    }

    /// Ends a nested step: restores the effects of the enclosing step, plus the nested step's annotations.
    pub(crate) fn finish_nested_step(&mut self, outer: CommandEffects) {
        let annotations = std::mem::replace(&mut self.effects, outer).annotations;
        let room = ANNOTATIONS_MAX.saturating_sub(self.effects.annotations.len());
        (self.effects.annotations).extend(annotations.into_iter().take(room));
    }

    /// Logs a message of the worker.
    pub(crate) fn log_message(&mut self, text: &str) {
        self.masker.learn_shared_secrets();
        self.log
            .write_lines(&self.masker.mask_bytes(text.as_bytes()));
    }

    /// Logs a message of the worker and adds it to the annotations.
    pub(crate) fn annotate(&mut self, level: AnnotationLevel, text: &str) {
        self.log_message(&format!("##[{}]{text}", level_name(level)));
        self.add_annotation(annotation::from_text(level, text, &self.masker));
    }

    /// Buffers the beginning of a line.
    fn buffer_partial(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        let is_too_long = self.partial.len() + bytes.len() > LINE_BYTES_MAX;
        let begins_command = is_too_long && self.long.is_none() && self.starts_command(bytes);
        match &mut self.long {
            Some(LongLine::Command) => {}
            Some(LongLine::Text(stream)) => stream.push(&self.masker, bytes, &mut out),
            None if !is_too_long => {
                self.partial.extend_from_slice(bytes);
            }
            None if begins_command => self.long = Some(LongLine::Command),
            None => {
                let mut stream = MaskStream::default();
                stream.push(&self.masker, &self.partial, &mut out);
                stream.push(&self.masker, bytes, &mut out);
                self.long = Some(LongLine::Text(stream));
            }
        }
        if self.long.is_some() {
            self.partial = Vec::new();
        }
        self.write_masked(&out);
    }

    fn starts_command(&self, more: &[u8]) -> bool {
        let line = if self.partial.is_empty() {
            more
        } else {
            &self.partial
        };
        self.effects.stopped.is_none()
            && workflow_command::parse_command(&String::from_utf8_lossy(line), None).is_some()
    }

    fn end_line(&mut self) {
        match self.long.take() {
            Some(LongLine::Text(mut stream)) => {
                let mut out = Vec::new();
                stream.finish(&self.masker, &mut out);
                self.write_masked(&out);
            }
            Some(LongLine::Command) => {
                let why = format!("a workflow command of more than {LINE_BYTES_MAX} bytes");
                self.fail_step(&why);
            }
            None if self.partial.is_empty() => {}
            None => {
                let line = std::mem::take(&mut self.partial);
                self.process_lines(&line);
                // Reuse the buffer.
                self.partial = line;
                self.partial.clear();
            }
        }
    }

    /// Processes complete lines.
    fn process_lines(&mut self, block: &[u8]) {
        let may_speak = memchr::memmem::find(block, b"::").is_some()
            || memchr::memmem::find(block, b"##[").is_some();
        if !may_speak && self.matchers.is_empty() {
            return self.write_text(block);
        }
        let (mut plain, mut from) = (0, 0);
        while from < block.len() {
            let end = memchr::memchr(b'\n', &block[from..]).map_or(block.len(), |end| from + end);
            let line = &block[from..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let effects = match self.parse_command(line) {
                Some(command) => {
                    self.write_text(&block[plain..from]);
                    self.handle_command(command, &String::from_utf8_lossy(line));
                    true
                }
                None => self.apply_matchers(line, &block[plain..from]),
            };
            if effects {
                plain = block.len().min(end + 1);
            }
            from = end + 1;
        }
        self.write_text(&block[plain..]);
    }

    fn parse_command(&self, line: &[u8]) -> Option<WorkflowCommand> {
        if !workflow_command::may_be_command(line) {
            return None;
        }
        workflow_command::parse_command(
            &String::from_utf8_lossy(line),
            self.effects.stopped.as_deref(),
        )
    }

    /// Whether a problem matcher matched the line. If so, writes `before` and then the line as an annotation.
    fn apply_matchers(&mut self, line: &[u8], before: &[u8]) -> bool {
        let Some(problem) = self.matchers.match_line(line) else {
            return false;
        };
        self.write_text(before);
        let line = problem_matcher::strip_colours(line);
        let line = String::from_utf8_lossy(&line);
        self.log_message(&format!("##[{}]{line}", level_name(problem.level)));
        self.add_annotation(annotation::from_problem(
            &problem,
            &self.workspace,
            &self.masker,
        ));
        true
    }

    fn write_text(&mut self, text: &[u8]) {
        if !text.is_empty() {
            let masked = self.masker.mask_bytes(text);
            match std::str::from_utf8(&masked) {
                Ok(_) => self.log.write_lines(&masked),
                Err(_) => self
                    .log
                    .write_lines(String::from_utf8_lossy(&masked).as_bytes()),
            }
        }
    }

    /// Writes text that is already masked.
    fn write_masked(&mut self, masked: &[u8]) {
        if !masked.is_empty() {
            self.log
                .write_lines(String::from_utf8_lossy(masked).as_bytes());
        }
    }

    fn handle_command(&mut self, command: WorkflowCommand, line: &str) {
        if self.effects.stopped.is_some() {
            if command.name == CommandName::Resume {
                self.effects.stopped = None;
            }
            return self.log_message(line);
        }
        // Register the mask before the command is echoed.
        if command.name == CommandName::AddMask {
            self.masker.add(&command.value);
        }
        if self.effects.echo && command.name != CommandName::Echo {
            self.log_message(line);
        }
        match command.name {
            CommandName::Error => self.add_command_annotation(AnnotationLevel::Error, &command),
            CommandName::Warning => self.add_command_annotation(AnnotationLevel::Warning, &command),
            CommandName::Notice => self.add_command_annotation(AnnotationLevel::Notice, &command),
            CommandName::Debug if self.debug => {
                let lines = command.value.lines().map(|line| format!("##[debug]{line}"));
                self.log_message(&lines.collect::<Vec<_>>().join("\n"));
            }
            CommandName::Debug => {}
            CommandName::Group => self.log_message(&format!("##[group]{}", command.value)),
            CommandName::EndGroup => self.log_message("##[endgroup]"),
            CommandName::Echo => match command.value.trim().to_ascii_lowercase().as_str() {
                "on" => self.effects.echo = true,
                "off" => self.effects.echo = false,
                other => self.fail_step(&format!("the command echo with {other:?}: it is on or off")),
            },
            CommandName::StopCommands => self.stop_commands(command.value),
            CommandName::SetOutput => match command.property("name") {
                Some(name) => self.effects.outputs.push((name.to_owned(), command.value)),
                None => self.fail_step("the command set-output without a name"),
            },
            CommandName::SetEnv => match command.property("name") {
                Some(name) if self.effects.unsecure => {
                    self.effects.env.push((name.to_owned(), command.value));
                }
                Some(name) => self.fail_step(&format!(
                    "the command set-env, which is disabled as on GitHub; write to the file instead: echo \"{name}=…\" >> \"$GITHUB_ENV\""
                )),
                None => self.fail_step("the command set-env without a name"),
            },
            CommandName::AddPath if self.effects.unsecure => self.effects.paths.push(command.value),
            CommandName::AddPath => self.fail_step(
                "the command add-path, which is disabled as on GitHub; write to the file instead: echo \"folder\" >> \"$GITHUB_PATH\"",
            ),
            CommandName::SaveState => match command.property("name") {
                Some(name) => self.effects.state.push((name.to_owned(), command.value)),
                None => self.fail_step("the command save-state without a name"),
            },
            CommandName::AddMatcher => self.add_matcher(&command),
            CommandName::RemoveMatcher => self.remove_matcher(&command),
            CommandName::AddMask => {}
            CommandName::Resume => self.log_message(line),
        }
    }

    fn add_matcher(&mut self, command: &WorkflowCommand) {
        let file = command.value.trim();
        if file.is_empty() {
            return self.annotate(
                AnnotationLevel::Warning,
                "add-matcher needs the path of a file",
            );
        }
        if let Err(why) = self.matchers.add_file(&self.workspace.join(file)) {
            self.fail_step(&format!("the command add-matcher: {why}"));
        }
    }

    fn remove_matcher(&mut self, command: &WorkflowCommand) {
        let file = command.value.trim();
        let owner = command.property("owner").filter(|owner| !owner.is_empty());
        match (owner, file.is_empty()) {
            (Some(owner), true) => self.matchers.remove_owner(owner),
            (None, false) => {
                let path = self.workspace.join(file);
                if let Err(why) = self.matchers.remove_file(&path) {
                    self.fail_step(&format!("the command remove-matcher: {why}"));
                }
            }
            _ => self.annotate(
                AnnotationLevel::Warning,
                "remove-matcher needs either the path of a file or an owner",
            ),
        }
    }

    fn stop_commands(&mut self, word: String) {
        if word.trim().is_empty() || workflow_command::is_command_name(&word) {
            return self.fail_step(&format!(
                "stop-commands with {word:?}: it needs a unique token"
            ));
        }
        self.effects.stopped = Some(word);
    }

    fn fail_step(&mut self, what: &str) {
        let why = format!("the step used {what}");
        self.log_message(&format!("##[error]{why}"));
        self.effects.failed.get_or_insert(why);
    }

    fn add_command_annotation(&mut self, level: AnnotationLevel, command: &WorkflowCommand) {
        self.log_message(&format!("##[{}]{}", level_name(level), command.value));
        let (workspace, masker) = (&self.workspace, &self.masker);
        self.add_annotation(annotation::from_command(level, command, workspace, masker));
    }

    fn add_annotation(&mut self, annotation: JournalBody) {
        if self.effects.annotations.len() < ANNOTATIONS_MAX {
            self.effects.annotations.push(annotation);
        }
    }
}

const fn level_name(level: AnnotationLevel) -> &'static str {
    match level {
        AnnotationLevel::Debug => "debug",
        AnnotationLevel::Notice => "notice",
        AnnotationLevel::Warning => "warning",
        AnnotationLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The log (without timestamps) of a program that prints `chunks`.
    fn logged(secrets: &[&str], chunks: &[&[u8]]) -> (String, CommandEffects) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let masker = Masker::new(secrets.iter().map(|secret| (*secret).to_owned()));
        let mut output = OutputProcessor::new(JobLog::open(&path).unwrap(), masker);
        chunks.iter().for_each(|chunk| output.process_bytes(chunk));
        output.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
        (lines.join("\n"), output.effects)
    }

    #[test]
    fn lines_come_whole_whatever_the_chunks() {
        let (text, _) = logged(&[], &[b"a", b"b\r\nc", b"\n", b"\n", b"d"]);
        assert_eq!(text, "ab\nc\n\nd");
    }

    #[test]
    fn commands_are_heard_in_order_with_the_text_around_them() {
        let printed = b"one\n::add-mask::hunter2\nhunter2\n::error file=a.rs,line=7::no hunter2\n::set-output name=x::1\n::stop-commands::w0rd\n::error::text\n::w0rd::\n::notice::n\ntwo\n";
        let (text, effects) = logged(&[], &[printed]);
        assert_eq!(
            text,
            "one\n***\n##[error]no ***\n::error::text\n::w0rd::\n##[notice]n\ntwo"
        );
        assert_eq!(effects.outputs, [("x".to_owned(), "1".to_owned())]);
        assert_eq!(effects.annotations.len(), 2);
        assert!(matches!(
            &effects.annotations[0],
            JournalBody::Annotation { message, file: Some(file), line: Some(7), .. } if message == "no ***" && file == "a.rs"
        ));
        assert_eq!(effects.failed, None);
    }

    #[test]
    fn echo_shows_commands_without_their_secrets() {
        let printed = b"::echo::on\n::add-mask::hunter2\n::debug::x\n::echo::off\n::debug::y\n";
        let (text, _) = logged(&[], &[printed]);
        assert_eq!(text, "::add-mask::***\n::debug::x");
    }

    #[test]
    fn matchers_make_annotations_of_what_tools_print() {
        let folder = tempfile::tempdir().unwrap();
        let matcher = r#"{"problemMatcher": [{"owner": "cc", "severity": "warning", "pattern": [{"regexp": "^(.+):(\\d+):(\\d+): (.*)$", "file": 1, "line": 2, "column": 3, "message": 4}]}]}"#;
        std::fs::write(folder.path().join("cc.json"), matcher).unwrap();
        std::fs::write(folder.path().join("a.c"), "").unwrap();
        let masker = Masker::new(["hunter2".to_owned()]);
        let mut output =
            OutputProcessor::new(JobLog::open(&folder.path().join("log")).unwrap(), masker);
        output.workspace = folder.path().to_owned();
        output.process_bytes(
            b"a.c:1:1: before\n::add-matcher::cc.json\none\n\x1b[31ma.c:3:4: no hunter2\x1b[0m\n",
        );
        output.process_bytes(b"two\ngone.c:5:6: x\n::remove-matcher owner=CC::\na.c:7:8: after\n");
        output.process_bytes(b"::remove-matcher::\n");
        output.finish();
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| &line[25..]).collect();
        assert_eq!(
            lines,
            [
                "a.c:1:1: before",
                "one",
                "##[warning]a.c:3:4: no ***",
                "two",
                "##[warning]gone.c:5:6: x",
                "a.c:7:8: after",
                "##[warning]remove-matcher needs either the path of a file or an owner"
            ]
        );
        let annotations = &output.effects.annotations;
        assert!(matches!(
            &annotations[0],
            JournalBody::Annotation { level: AnnotationLevel::Warning, message, file: Some(file), line: Some(3), column: Some(4), .. } if message == "no ***" && file == "a.c"
        ));
        assert!(matches!(
            &annotations[1],
            JournalBody::Annotation {
                file: None,
                line: Some(5),
                ..
            }
        ));
        assert_eq!(output.effects.failed, None);
    }

    #[test]
    fn a_line_that_never_ends_fills_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let masker = Masker::new(["hunter2".to_owned()]);
        let mut output =
            OutputProcessor::new(JobLog::open(&folder.path().join("log")).unwrap(), masker);
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..32 {
            output.process_bytes(&chunk);
            assert!(output.partial.capacity() <= 2 * LINE_BYTES_MAX);
        }
        output.process_bytes(b"hunt");
        output.process_bytes(b"er2\nnext\n");
        output.finish();
        let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(text.ends_with("next\n") && !text.contains("hunt"));
        assert!(text.len() > 32 << 20 && text.len() < 33 << 20);
    }

    /// `cargo test --release -p shipway-worker --lib figures -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement, of use in release builds only"]
    fn figures() {
        let secret = |n: u64| format!("s3cr3t-{n:02}-{:x}", n * 0x9e37_79b9);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = OutputProcessor::new(
            JobLog::open(&path).unwrap(),
            Masker::new((0..50).map(secret)),
        );
        // A typical build: 80 bytes per line, a secret in every hundredth line.
        let line =
            "   Compiling some-crate v1.2.3 (/home/runner/work/shop/shop/crates/some-crate)\n";
        let chunk = line.repeat(99) + &format!("token={}\n", secret(7));
        let chunk = chunk.repeat(32);
        let begun = std::time::Instant::now();
        for _ in 0..1000 {
            output.process_bytes(chunk.as_bytes());
        }
        output.finish();
        let rate = 3_200_000.0 / begun.elapsed().as_secs_f64();
        println!("masked lines a second, with 50 secrets: {rate:.0}");
        std::fs::remove_file(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        let begun = std::time::Instant::now();
        for _ in 0..1024 {
            output.process_bytes(&chunk);
        }
        output.finish();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        println!(
            "a line of 1 GiB: {:.1} s, {peak}",
            begun.elapsed().as_secs_f64()
        );
        assert!(rate > 1e6, "{rate}");
    }

    #[test]
    fn commands_that_are_off_say_what_to_do_instead() {
        for (printed, help) in [
            (&b"::set-env name=A::1\n"[..], "GITHUB_ENV"),
            (b"::add-path::/x\n", "GITHUB_PATH"),
            (b"##[set-output]x\n", "without a name"),
            (b"::stop-commands::error\n", "unique token"),
            (b"::echo::loud\n", "on or off"),
            (b"::add-matcher::/nowhere.json\n", "/nowhere.json"),
        ] {
            let (text, effects) = logged(&[], &[printed]);
            assert!(text.contains(help), "{text}");
            assert!(effects.failed.unwrap().contains(help));
        }
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces_and_masked() {
        let secret = "hunter2hunter2";
        let piece = "x".repeat(100_003) + secret;
        let chunks: Vec<&[u8]> = piece.as_bytes().chunks(7_919).collect();
        let many: Vec<&[u8]> = chunks
            .iter()
            .copied()
            .cycle()
            .take(chunks.len() * 30)
            .collect();
        let (text, _) = logged(&[secret], &many);
        assert!(!text.contains("hunter2"), "a secret is in the log");
        assert_eq!(text.matches("***").count(), 30);
        assert_eq!(text.matches('x').count(), 30 * 100_003);
    }

    #[test]
    fn nothing_is_seen_of_a_command_that_is_too_long() {
        let printed = [b"::add-mask::".as_slice(), &[b's'; LINE_BYTES_MAX]].concat();
        let (text, effects) = logged(&[], &[&printed, b"sss\nnext\n"]);
        assert!(!text.contains("sss"), "{}", text.len());
        assert!(text.ends_with("next"));
        assert!(effects.failed.is_some());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        let (text, _) = logged(&["hunter2"], &[b"a\xff\xfehunter2\xff\n"]);
        assert_eq!(text, "a\u{fffd}\u{fffd}***\u{fffd}");
    }

    proptest! {
        #[test]
        fn a_secret_is_masked_wherever_the_output_is_cut(
            before in "[a-c\n]{0,30}",
            after in "[a-c\n]{0,30}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let text = format!("{before}abcabc{after}");
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let mut from = 0;
            let chunks: Vec<&[u8]> = ends
                .iter()
                .map(|end| &text.as_bytes()[std::mem::replace(&mut from, *end)..*end])
                .collect();
            let (text, _) = logged(&["abcabc"], &chunks);
            prop_assert!(!text.contains("abcabc"), "{}", text);
        }
    }
}
