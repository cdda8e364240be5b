// Package selftest runs `portsentry selftest` as people do: it keeps what it says
// about configurations of every kind, and leaves the machine as it was.
package selftest
