package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// setting is one key of the file, bound to its place in a Config.
type setting struct {
	key  string
	def  string                      // the value when the key is absent or empty; "" leaves the zero value
	read func(value string) []string // stores value (never blank), or says all that is wrong with it
	show func() string               // what is stored, as the file would have it; "" when not set
}

// settings is every key there is, in the order of the effective configuration.
func settings(c *Config) []setting {
	return []setting{
		portsKey("TCP_PORTS", &c.TCPPorts),
		portsKey("UDP_PORTS", &c.UDPPorts),
		advancedKey("ADVANCED_PORTS_TCP", &c.AdvancedPortsTCP),
		advancedKey("ADVANCED_PORTS_UDP", &c.AdvancedPortsUDP),
		portsKey("ADVANCED_EXCLUDE_TCP", &c.AdvancedExcludeTCP),
		portsKey("ADVANCED_EXCLUDE_UDP", &c.AdvancedExcludeUDP),

		interfacesKey("INTERFACES", &c.Interfaces),
		wordKey("CAPTURE", &c.Capture, CaptureAuto, CaptureXDP, CaptureAFPacket),

		pathKey("IGNORE_FILE", &c.IgnoreFile),
		pathKey("HISTORY_FILE", &c.HistoryFile),
		pathKey("BLOCKED_FILE", &c.BlockedFile),
		pathKey("SOURCES_FILE", &c.SourcesFile),
		pathKey("DATABASE_FILE", &c.DatabaseFile),
		durationKey("DATABASE_KEEP", &c.DatabaseKeep, "12w", ""),
		sizeKey("DATABASE_SIZE", &c.DatabaseSize, 8, 65536, 256),
		pathsKey("GEO_FILES", &c.GeoFiles),
		flagKey("RESOLVE_HOST", &c.ResolveHost),
		wordKey("LOG_FORMAT", &c.LogFormat, Log2x, Log1x, LogJSON),
		listenKey("METRICS_LISTEN", &c.MetricsListen),

		wordKey("SCAN_DETECT", &c.ScanDetect, DetectTraps, DetectFull),
		numberKey("SCAN_TRIGGER", &c.ScanTrigger),
		durationKey("SCAN_TRIGGER_WINDOW", &c.ScanTriggerWindow, "", `; leave it empty for "for ever"`),

		blockKey("BLOCK_TCP", &c.BlockTCP),
		blockKey("BLOCK_UDP", &c.BlockUDP),
		methodsKey("BLOCK_METHOD", &c.BlockMethods),
		wordKey("BLOCK_EVIDENCE", &c.BlockEvidence, EvidenceAny, EvidenceVerified),
		flagKey("VERIFY_SOURCE", &c.VerifySource),
		durationKey("BAN_TIME", &c.BanTime, "1h", ""),
		durationKey("BAN_TIME_UNVERIFIED", &c.BanTimeUnverified, "10m", ""),
		sizeKey("BAN_TIME_FACTOR", &c.BanTimeFactor, 1, 100, 2),
		durationKey("BAN_TIME_MAX", &c.BanTimeMax, "1w", ""),

		templateKey("KILL_ROUTE", &c.KillRoute, true),
		templateKey("KILL_ROUTE6", &c.KillRoute6, true),
		templateKey("KILL_ROUTE_UNDO", &c.KillRouteUndo, false),
		templateKey("KILL_HOSTS_DENY", &c.KillHostsDeny, true),
		templateKey("KILL_RUN_CMD", &c.KillRunCmd, false),
		templateKey("KILL_RUN_CMD_UNDO", &c.KillRunCmdUndo, false),
		flagKey("KILL_RUN_CMD_FIRST", &c.KillRunCmdFirst),
		bannerKey("PORT_BANNER", &c.PortBanner),
	}
}

func portsKey(key string, to *PortSet) setting {
	return setting{key, "", func(v string) []string {
		set, problems := parsePorts(v)
		for i, p := range problems {
			problems[i] = quoted(v) + ": " + p
		}
		if problems == nil {
			*to = set
		}
		return problems
	}, func() string { return to.String() }}
}

// advancedKey is N, for the ports 1 to N-1.
func advancedKey(key string, to *int) setting {
	return setting{key, "", func(v string) []string {
		return readNumber(v, 2, 65536, "; ports 1 to one below it are watched", to)
	}, func() string { return showNumber(*to, 0) }}
}

func numberKey(key string, to *int) setting {
	return setting{key, "0", func(v string) []string {
		return readNumber(v, 0, 1<<31-1, "", to)
	}, func() string { return showNumber(*to, -1) }}
}

// sizeKey is a whole number from least to most.
func sizeKey(key string, to *int, least, most, def int) setting {
	return setting{key, strconv.Itoa(def), func(v string) []string {
		return readNumber(v, least, most, "", to)
	}, func() string { return showNumber(*to, -1) }}
}

func interfacesKey(key string, to *[]string) setting {
	return setting{key, "", func(v string) []string {
		names, problems := parseInterfaces(v)
		if problems == nil {
			*to = names
		}
		return problems
	}, func() string { return strings.Join(*to, ",") }}
}

// wordKey is one of a few words, the first being the default.
func wordKey[T ~string](key string, to *T, def T, others ...T) setting {
	words := []string{string(def)}
	for _, o := range others {
		words = append(words, string(o))
	}
	return setting{key, string(def), func(v string) []string {
		word, problem := readWord(v, words)
		if problem != nil {
			return problem
		}
		*to = T(word)
		return nil
	}, func() string { return string(*to) }}
}

func methodsKey(key string, to *[]Method) setting {
	return setting{key, "", func(v string) []string {
		methods, problems := parseMethods(v)
		if problems == nil {
			*to = methods
		}
		return problems
	}, func() string { return showMethods(*to) }}
}

func flagKey(key string, to *bool) setting {
	return setting{key, "0", func(v string) []string {
		switch strings.Trim(v, blanks) {
		case "0":
			*to = false
		case "1":
			*to = true
		default:
			return []string{quoted(v) + ": must be 0 (no) or 1 (yes)"}
		}
		return nil
	}, func() string {
		if *to {
			return "1"
		}
		return "0"
	}}
}

func blockKey(key string, to *Block) setting {
	return setting{key, "0", func(v string) []string {
		switch strings.Trim(v, blanks) {
		case "0":
			*to = BlockNone
		case "1":
			*to = BlockBan
		case "2":
			*to = BlockCommand
		default:
			return []string{quoted(v) + ": must be 0 (log only), 1 (ban) or 2 (KILL_RUN_CMD only)"}
		}
		return nil
	}, func() string { return showNumber(int(*to), -1) }}
}

// durationKey takes a def of "" where not being set has a meaning of its own;
// hint is added to a refusal.
func durationKey(key string, to *time.Duration, def, hint string) setting {
	return setting{key, def, func(v string) []string {
		d, problem := parseDuration(v)
		if problem != "" {
			return []string{quoted(v) + ": " + problem + hint}
		}
		*to = d
		return nil
	}, func() string { return showDuration(*to) }}
}

func textKey(key string, to *string) setting {
	return setting{key, "", func(v string) []string {
		if p := controlCharacter(v); p != nil {
			return p
		}
		*to = v
		return nil
	}, func() string { return *to }}
}

// bannerKey takes what fits into one datagram that no link has to cut up.
func bannerKey(key string, to *string) setting {
	const most = 1024 // the longest value of 2.x was a byte shorter
	s := textKey(key, to)
	text := s.read
	s.read = func(v string) []string {
		if len(v) > most {
			return []string{fmt.Sprintf("a banner of %d bytes is too long (%d at most)", len(v), most)}
		}
		return text(v)
	}
	return s
}

// pathKey does not look whether the file is there: parsing touches nothing.
func pathKey(key string, to *string) setting {
	const pathMax = 4096 // PATH_MAX of Linux, its NUL included
	s := textKey(key, to)
	text := s.read
	s.read = func(v string) []string {
		if len(v) >= pathMax {
			return []string{fmt.Sprintf("a path of %d bytes is too long (%d at most)", len(v), pathMax-1)}
		}
		return text(v)
	}
	return s
}

// pathsKey is paths with commas between.
func pathsKey(key string, to *[]string) setting {
	return setting{key, "", func(v string) []string {
		var paths []string
		for one := range strings.SplitSeq(v, ",") {
			var path string
			if problems := pathKey(key, &path).read(strings.Trim(one, blanks)); problems != nil {
				return problems
			}
			if path != "" {
				paths = append(paths, path)
			}
		}
		*to = paths
		return nil
	}, func() string { return strings.Join(*to, ",") }}
}

// listenKey is the address and port of a listener, or the path of its socket.
func listenKey(key string, to *string) setting {
	return setting{key, "", func(v string) []string {
		v = strings.Trim(v, blanks)
		if !strings.HasPrefix(v, "/") {
			if _, err := netip.ParseAddrPort(v); err != nil {
				return []string{quoted(v) + ": no address with a port, such as 127.0.0.1:9797 or [::1]:9797, nor the path of a socket"}
			}
		}
		*to = v
		return nil
	}, func() string { return *to }}
}

func templateKey(key string, to *string, target bool) setting {
	s := textKey(key, to)
	text := s.read
	s.read = func(v string) []string {
		if problems := append(controlCharacter(v), checkTokens(v, target)...); problems != nil {
			return problems
		}
		return text(v)
	}
	return s
}
