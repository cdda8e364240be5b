// Package machines holds the end-to-end tests of what machines read: metrics and
// health over the listener of METRICS_LISTEN, lines of JSON, fields of the journal,
// and what the service manager is told. A built program, a configuration and a
// scanner go in; what comes out is compared with docs/metrics.md and docs/json.md.
package machines
