//! Annotations of steps, collected while a journal is followed; bounded, since any step can print as many as it wants.

use shipway_core::run::Annotation;
use shipway_workflow::job::{AnnotationLevel, JournalBody};

/// Annotations kept of each level of a job.
const EACH_MAX: usize = 20;
/// Characters of a message that are kept.
const MESSAGE_MAX: usize = 2_000;

/// What a job has pointed out so far.
#[derive(Default)]
pub(super) struct JobAnnotations(Vec<Annotation>);

impl JobAnnotations {
    /// Takes an entry of the journal in, when it is an annotation.
    pub(super) fn record(&mut self, body: &JournalBody) {
        let JournalBody::Annotation {
            level,
            message,
            file,
            line,
            title,
            ..
        } = body
        else {
            return;
        };
        let same = self.0.iter().filter(|known| known.level == *level);
        if *level == AnnotationLevel::Debug || same.count() >= EACH_MAX {
            return;
        }
        self.0.push(Annotation {
            level: *level,
            message: message.chars().take(MESSAGE_MAX).collect(),
            file: file.clone(),
            line: *line,
            title: title.clone(),
        });
    }

    /// All of it, errors before warnings before notices.
    pub(super) fn worst_first(self) -> Vec<Annotation> {
        let mut all = self.0;
        all.sort_by_key(|annotation| match annotation.level {
            AnnotationLevel::Error => 0,
            AnnotationLevel::Warning => 1,
            AnnotationLevel::Notice => 2,
            AnnotationLevel::Debug => 3,
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_none_crowds_out_another() {
        let mut all = JobAnnotations::default();
        for (level, count) in [
            (AnnotationLevel::Notice, 100),
            (AnnotationLevel::Debug, 5),
            (AnnotationLevel::Error, 2),
        ] {
            for _ in 0..count {
                all.record(&JournalBody::Annotation {
                    level,
                    message: "x".repeat(10_000),
                    file: None,
                    line: None,
                    end_line: None,
                    column: None,
                    end_column: None,
                    title: None,
                });
            }
        }
        let all = all.worst_first();
        assert_eq!((all.len(), all[1].level), (22, AnnotationLevel::Error));
        assert_eq!(all[21].level, AnnotationLevel::Notice);
        assert_eq!(all[0].message.len(), MESSAGE_MAX);
    }
}
