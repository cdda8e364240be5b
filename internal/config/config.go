// Package config reads what the administrator wrote: portsentry.conf in the
// dialects of 1.x and 2.x, the ignore file, and the files of packagers that say
// how to watch. Files in, one checked Config out, or every mistake at once with
// its line. Parsing touches nothing else.
package config

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Block is the value of BLOCK_TCP or BLOCK_UDP.
type Block int

// Values of BLOCK_TCP and BLOCK_UDP.
const (
	BlockNone    Block = 0 // log only
	BlockBan     Block = 1 // ban
	BlockCommand Block = 2 // KILL_RUN_CMD only, and a ban of the scanned protocol where a native method is named
)

// Method is one of the values of BLOCK_METHOD.
type Method string

// Values of BLOCK_METHOD. xdp, nftables, route and ipset go together, the others
// stand alone. Absent means none, so that an old file does what it did.
const (
	MethodNone     Method = "none"
	MethodAuto     Method = "auto" // xdp and nftables, as far as they are there
	MethodXDP      Method = "xdp"  // the XDP program
	MethodNftables Method = "nftables"
	MethodRoute    Method = "route"  // a blackhole route
	MethodIPSet    Method = "ipset"  // sets for iptables rules of the owner's
	MethodDryRun   Method = "dryrun" // says what it would do
)

// LogFormat is the value of LOG_FORMAT.
type LogFormat string

// Values of LOG_FORMAT.
const (
	Log1x   LogFormat = "1.x"
	Log2x   LogFormat = "2.x"
	LogJSON LogFormat = "json"
)

// CaptureMethod is the value of CAPTURE.
type CaptureMethod string

// Values of CAPTURE.
const (
	CaptureAuto     CaptureMethod = "auto"
	CaptureXDP      CaptureMethod = "xdp"
	CaptureAFPacket CaptureMethod = "afpacket"
)

// BlockEvidence is the value of BLOCK_EVIDENCE.
type BlockEvidence string

// Values of BLOCK_EVIDENCE.
const (
	EvidenceAny      BlockEvidence = "any"      // unverified evidence earns the soft ban
	EvidenceVerified BlockEvidence = "verified" // unverified evidence earns the limited ban only
)

// ScanDetect is the value of SCAN_DETECT.
type ScanDetect string

// Values of SCAN_DETECT.
const (
	DetectTraps ScanDetect = "traps" // who touches a trap
	DetectFull  ScanDetect = "full"  // and who tries what nobody serves, trap or not
)

// Config is a checked configuration: every value is in range, every default
// filled in. It is immutable once made.
type Config struct {
	Path string // the file, or "" for the built-in default

	TCPPorts, UDPPorts PortSet

	AdvancedPortsTCP, AdvancedPortsUDP     int // N: ports 1 to N-1; 0 when not set
	AdvancedExcludeTCP, AdvancedExcludeUDP PortSet

	IgnoreFile, HistoryFile, BlockedFile, SourcesFile string

	DatabaseFile string        // "": what happened is kept in memory alone
	DatabaseKeep time.Duration // what is older is forgotten
	DatabaseSize int           // MiB that it takes at most
	GeoFiles     []string      // databases of countries and autonomous systems, for the ignore file

	ResolveHost        bool
	BlockTCP, BlockUDP Block
	BlockMethods       []Method // in the order of the file; empty: none, which itself is never in it
	BlockEvidence      BlockEvidence
	BanTime            time.Duration
	BanTimeUnverified  time.Duration
	BanTimeFactor      int           // each ban of a prefix is this much longer than the one before
	BanTimeMax         time.Duration // up to this

	KillRoute, KillRoute6, KillRouteUndo string
	KillHostsDeny                        string
	KillRunCmd, KillRunCmdUndo           string
	KillRunCmdFirst                      bool

	VerifySource      bool          // challenge who probes a TCP trap
	ScanDetect        ScanDetect    // what counts as a scan
	ScanTrigger       int           // fires from the Nth hit; 0 and 1 are the same
	ScanTriggerWindow time.Duration // 0: for ever, within bounded memory
	PortBanner        string

	Capture    CaptureMethod
	Interfaces []string // empty: every interface that holds an address of ours
	LogFormat  LogFormat

	MetricsListen string // address and port, or the path of a socket; "": nowhere

	// Modes and Dialect do not come from this file (WithModes). Until they are
	// said, both protocols are watched in stealth mode.
	Modes   Modes
	Dialect Dialect

	lines map[string]int
}

// Line is the line that gave key its value; 0 when it has its default.
func (c *Config) Line(key string) int { return c.lines[key] }

// Load reads and checks a configuration file. The error is a *Mistakes where
// the file could be read.
func Load(path string) (*Config, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse checks the text of a configuration file; name is what to call it in
// messages and becomes Path. The error is a *Mistakes with all of them.
func Parse(name string, data []byte) (*Config, error) {
	rep := &report{file: name}
	c := &Config{Path: name, Modes: Modes{Stealth, Stealth}, lines: map[string]int{}}
	if len(data) > maxFile {
		rep.add(0, "", "more than %d bytes; this is no portsentry.conf", maxFile)
	} else {
		fill(c, lex(data, rep), rep)
	}
	if err := rep.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// readBounded reads a file, one byte more than maxFile at most.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}
