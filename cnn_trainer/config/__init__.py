"""From YAML to a checked, frozen experiment: schema, loading, faults, template, strict YAML."""
