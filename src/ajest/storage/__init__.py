"""Files that are whole or not there: tensors, lines, configs, locks."""
