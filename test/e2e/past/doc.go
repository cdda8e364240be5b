// Package past scans a host with a running daemon, and asks that what has happened:
// events, sources, why and report have to say what was really sent, and every answer
// has to fit its schema in docs/openapi.json.
package past
