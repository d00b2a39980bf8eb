"""What makes models or takes hours: presets, data sets, records, training, the organism, studies and the audit."""
