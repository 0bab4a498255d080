"""Does an indicator order architectures as retraining does? The study of section 4.5.2, Fig. 6."""
