//! The only thing that built-in actions can do with the output of their step.

use shipway_workflow::job::AnnotationLevel;

use crate::output_processor::OutputProcessor;

/// Where an action writes messages, which are masked and logged at once.
pub(crate) trait ActionLog {
    fn log_message(&mut self, text: &str);
    fn annotate(&mut self, level: AnnotationLevel, text: &str);
}

impl ActionLog for OutputProcessor {
    fn log_message(&mut self, text: &str) {
        self.log_message(text);
        self.log.flush();
    }

    fn annotate(&mut self, level: AnnotationLevel, text: &str) {
        self.annotate(level, text);
    }
}
