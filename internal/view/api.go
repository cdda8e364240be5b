package view

// DefaultSocket is where the daemon listens and its commands ask.
const DefaultSocket = "/run/portsentry/portsentry.sock"

// Group is the group whose members may ask beside root, where it exists.
const Group = "portsentry"

// Paths of the control socket's HTTP interface, version 1. docs/openapi.json has
// the methods, queries and answers of each.
const (
	PathStatus  = "/v1/status"
	PathHealth  = "/v1/health"
	PathBans    = "/v1/bans" // and PathBans + "/" + address or prefix
	PathModes   = "/v1/modes"
	PathEvents  = "/v1/events"
	PathSources = "/v1/sources"
	PathWhy     = "/v1/why" // and "/" + address
	PathReport  = "/v1/report"
	PathReload  = "/v1/reload"
	PathPending = "/v1/pending" // and "/" + number
)

// Join is what a second start with a flag of 1.x asks of the daemon that runs:
// 1.x had a process for each mode, we have one for all.
type Join struct {
	Config string // path of the configuration; it must be the daemon's
	TCP    string // mode to watch TCP in as well: connect, stealth, advanced; "": as it is
	UDP    string
}

// Modes is the answer of PUT PathModes: how both protocols are watched now.
type Modes struct {
	PID int    `json:"pid"`
	TCP string `json:"tcp_mode"`
	UDP string `json:"udp_mode"`
	// Stopping: it does not take anybody in any more.
	Stopping bool `json:"stopping,omitempty"`
}

// BanList is the answer of GET PathBans.
type BanList struct {
	Bans []Ban `json:"bans"`
}
