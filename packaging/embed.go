// Package packaging holds the files that are installed beside the program, one
// of which is its built-in default: nothing in, its text out.
package packaging

import _ "embed"

//go:embed portsentry.conf
var config string

// Config is the shipped portsentry.conf.
func Config() []byte { return []byte(config) }
