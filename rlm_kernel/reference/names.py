"""The names of backends and of environments, for annotations. The reference has a `Literal` of a fixed list."""

ClientBackend = str
EnvironmentType = str
