// Package packaging holds the files that are installed beside the program and
// are its built-in defaults: nothing in, their text out.
package packaging

import _ "embed"

//go:embed portsentry.conf
var config string

//go:embed portsentry.ignore
var ignore string

// Config is the shipped portsentry.conf.
func Config() []byte { return []byte(config) }

// Ignore is the shipped portsentry.ignore.
func Ignore() []byte { return []byte(ignore) }
