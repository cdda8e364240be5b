package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/host"
)

const replayLong = `Replay runs the detection over captures, in their own time: for tuning, for
evidence, for tests. Nothing of this machine is read or touched, and nobody is
banned. It reads pcap and pcapng files, gzipped or not; - is standard input.

Several files go through one engine in the order given, as one long capture:
what the first one shows of a source counts in the second. Each packet keeps its
own time, so time may jump, backwards as well.

Without a configuration the detection is the full one, and no port is a trap;
--detect traps takes the shipped trap ports then. With --config it is what
SCAN_DETECT says there, with the trap ports, SCAN_TRIGGER and ignore file of that
configuration. A port that answered in the capture is served and no trap.

--local says which networks are ours: trap ports count there only, and a scan
comes from inside or from outside. Where it is left to guessing, only the words
depend on it.

Exit status: 0 whether or not there was a scan, 1 if a file could not be read to
its end (what could be read is judged), 2 if the command line or the
configuration is wrong. A last packet that was cut off is no error.`

const replayExample = `  portsentry replay monday.pcap.gz tuesday.pcap.gz
  portsentry replay --config new.conf --detect traps monday.pcap
  portsentry replay --json --local 192.0.2.0/24,2001:db8::/32 monday.pcapng
  sudo tcpdump -w - | portsentry replay -`

// replayFlags are the options of the command as they were typed.
type replayFlags struct {
	config, detect, local string
	json                  bool
}

func newReplay(path *string, stdout, stderr io.Writer) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:     "replay FILE...",
		Short:   "Run the detection over captures and say who scanned",
		Long:    replayLong,
		Example: replayExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("replay wants a capture, for example: portsentry replay monday.pcap; - is standard input")
			}
			if i := slices.Index(args, "-"); i >= 0 && slices.Contains(args[i+1:], "-") {
				return errors.New("- is given twice, and standard input can be read once")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.config == "" {
				f.config = *path
			}
			r, err := f.replay(stderr)
			if err != nil {
				return err
			}
			r.stdin = cmd.InOrStdin()
			return r.run(cmd.Context(), args, stdout)
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVar(&f.config, "config", "", "what would this configuration `file` have said (the same as -c)")
	c.Flags().StringVar(&f.detect, "detect", "", "`how` to detect, full or traps (default full, or as --config says)")
	c.Flags().StringVar(&f.local, "local", "", "own `networks`, comma separated (guessed when not given)")
	c.Flags().BoolVar(&f.json, "json", false, "print one line of JSON for each source and kind of scan (docs/json.md)")
	words := cobra.FixedCompletions([]cobra.Completion{"full", "traps"}, cobra.ShellCompDirectiveNoFileComp)
	none := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveNoFileComp)
	for name, complete := range map[string]cobra.CompletionFunc{"detect": words, "local": none} {
		if err := c.RegisterFlagCompletionFunc(name, complete); err != nil {
			panic(err) // no such flag: of ours
		}
	}
	return c
}

// replay makes what was typed into a replay.
func (f *replayFlags) replay(stderr io.Writer) (*replay, error) {
	r := &replay{json: f.json, stderr: stderr, progress: newProgress(stderr)}
	local, err := parseNetworks(f.local)
	if err != nil {
		return nil, err
	}
	r.local = newLocalNetworks(local)
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	r.ignores = r.ignored(c)
	rules := detect.Rules{
		TCP: c.TrapsTCP().Bitmap(), UDP: c.TrapsUDP().Bitmap(),
		Trigger: c.ScanTrigger, Window: c.ScanTriggerWindow,
	}
	traps := newReplayTraps(rules, r.local.own)
	if c.ScanDetect == config.DetectTraps {
		r.engines = []replayEngine{traps}
		return r, nil
	}
	if f.config == "" { // a trap is what somebody has named
		rules.TCP, rules.UDP = new(config.Bitmap), new(config.Bitmap)
	}
	full, err := newReplayFull(rules, r.local)
	if err != nil {
		return nil, err
	}
	r.engines = []replayEngine{full}
	if f.config != "" {
		r.engines = append(r.engines, traps)
	}
	return r, nil
}

// ignored reads the ignore files of c, and the databases that they need. No name in
// them is asked for: what it stands for now it may not have stood for then.
func (r *replay) ignored(c *config.Config) func(netip.Addr) bool {
	files := openIgnore(c.IgnoreFile)
	if said := files.problem(); said != "" {
		r.say("%s", said)
	}
	i := files.entries()
	geo := host.ReadGeo(context.Background(), c.GeoFiles, geoWanted(i))
	for _, said := range geo.Problems() {
		r.say("%s", said)
	}
	for _, m := range geo.Missing() {
		r.say("%s: %s", m.Entry, m.Why)
	}
	if n := len(i.Names); n > 0 {
		r.say("%d %s in the ignore file not asked for", n, plural(n, "name is", "names are"))
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) || geo.Entry(netip.PrefixFrom(a, a.BitLen())) != ""
	}
}

// load reads the configuration that was named, and what was asked for besides.
// Without one nothing of this machine has a say.
func (f *replayFlags) load() (c *config.Config, err error) {
	if f.config != "" {
		c, err = config.Load(f.config)
	} else if c, err = builtin(); err == nil {
		c.IgnoreFile, c.ScanDetect = "", config.DetectFull
	}
	if err != nil {
		return nil, err
	}
	switch how := config.ScanDetect(f.detect); how {
	case "":
	case config.DetectFull, config.DetectTraps:
		c.ScanDetect = how
	default:
		return nil, fmt.Errorf("--detect %.60q: must be full or traps%s", f.detect, didYouMean(f.detect, "full", "traps"))
	}
	return c, nil
}
