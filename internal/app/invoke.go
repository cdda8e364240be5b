package app

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portsentry/internal/config"
)

// Options are what the command line asks of the daemon.
type Options struct {
	Build      Build
	ConfigPath string // "": the default file, else the built-in default
	Socket     string
	PIDFile    string // "": none

	Modes   config.Modes // both Unwatched: as the files of old say, else stealth
	Dialect config.Dialect

	Interfaces []string // -i; empty: as INTERFACES says
	Loopback   bool     // -i ALL: the loopback, too

	ToStdout, ToSyslog bool
	Verbose, Debug     bool
	ShowOwn            bool // -L
	TrapServed         bool // -S

	Detach         bool
	Stdout, Stderr io.Writer

	ready func() // told when something is watched
}

// failure is the exit code of a daemon that could not do what it was asked to.
func (o *Options) failure() int {
	if o.Dialect == config.Dialect1x {
		return 255
	}
	return 1
}

// oldModes are the flags of 1.x without their dash.
var oldModes = []string{"tcp", "udp", "stcp", "sudp", "atcp", "audp"}

// takeOldModes splits the flags of 1.x from the other arguments. They look like
// a run of short flags, which is what the parser would take them for.
func takeOldModes(args []string) (modes, rest []string) {
	for i, arg := range args {
		switch word, ok := strings.CutPrefix(arg, "-"); {
		case arg == "--":
			return modes, append(rest, args[i:]...)
		case ok && slices.Contains(oldModes, word):
			modes = append(modes, word)
		default:
			rest = append(rest, arg)
		}
	}
	return modes, rest
}

// flags are the options of the daemon as the parser fills them in.
type flags struct {
	mode       modeFlag
	interfaces []string
	logTo      []string
	method     string
	daemon     bool
	foreground bool
	pidFile    string
	o          Options // what needs no second thought
}

// defaultPIDFile is where a detached daemon says its number.
const defaultPIDFile = "/run/portsentry.pid"

func (f *flags) register(set *pflag.FlagSet) {
	for _, m := range []struct {
		name, usage string
		mode        config.Mode
	}{
		{"stealth", "watch packets below the sockets (the default)", config.Stealth},
		{"connect", "trap ports accept connections, and may send PORT_BANNER", config.Connect},
		{"advanced", "as --stealth, on every port below ADVANCED_PORTS_TCP and _UDP", config.Advanced},
	} {
		flag := set.VarPF(&modeName{&f.mode, m.mode, m.name}, m.name, "", m.usage)
		flag.NoOptDefVal = "true"
	}
	set.StringArrayVarP(&f.interfaces, "interface", "i", nil, "watch this interface by `name` (repeatable), ALL of them or ALL_NLO (all but the loopback)")
	set.StringArrayVarP(&f.logTo, "logoutput", "l", nil, "log to this `target`, stdout or syslog (repeatable)")
	set.StringVarP(&f.method, "method", "m", "", "this `way`, pcap or raw: accepted for the sake of 2.x; CAPTURE says how packets are read")
	set.BoolVarP(&f.daemon, "daemon", "D", false, "detach and log to syslog")
	set.BoolVar(&f.foreground, "foreground", false, "do not detach (with a flag of 1.x)")
	set.StringVar(&f.pidFile, "pidfile", "", "write the process number to this `file` (detached: "+defaultPIDFile+")")
	set.BoolVarP(&f.o.ShowOwn, "disable-local-check", "L", false, "show probes from this host's own addresses like any other")
	set.BoolVarP(&f.o.TrapServed, "disable-service-check", "S", false, "a listed port is a trap even while a service listens on it")
	set.BoolVarP(&f.o.Debug, "debug", "d", false, "say everything")
	set.BoolVarP(&f.o.Verbose, "verbose", "v", false, "say more")
}

// modeFlag is the one mode option that may be given.
type modeFlag struct {
	mode config.Mode
	name string
}

// modeName sets a modeFlag; for pflag.
type modeName struct {
	to   *modeFlag
	mode config.Mode
	name string
}

func (m *modeName) String() string { return "" }
func (m *modeName) Type() string   { return "bool" }
func (m *modeName) Set(v string) error {
	switch {
	case v == "false":
		return nil
	case v != "true":
		return errors.New("takes no value")
	case m.to.name == m.name:
		return errors.New("given twice; once is enough")
	case m.to.name != "":
		return fmt.Errorf("one mode only, and --%s came before", m.to.name)
	}
	m.to.mode, m.to.name = m.mode, m.name
	return nil
}

// options turns the flags into Options; old are the flags of 1.x.
func (f *flags) options(old []string) (Options, error) {
	o := f.o
	if len(old) > 0 {
		if f.mode.name != "" {
			return o, fmt.Errorf("-%s and --%s both ask for a mode: keep one", old[0], f.mode.name)
		}
		modes, err := config.ModesFromWords(old)
		if err != nil {
			return o, err
		}
		o.Modes, o.Dialect = modes, config.Dialect1x
	} else if f.mode.name != "" {
		o.Modes = config.Modes{TCP: f.mode.mode, UDP: f.mode.mode}
	}
	if f.daemon && f.foreground {
		return o, errors.New("--daemon detaches and --foreground does not: keep one")
	}
	o.Detach = f.daemon || o.Dialect == config.Dialect1x && !f.foreground
	o.PIDFile = f.pidFile
	if o.Detach && o.PIDFile == "" {
		o.PIDFile = defaultPIDFile
	}
	if err := f.logTargets(&o); err != nil {
		return o, err
	}
	if f.method != "" && f.method != "pcap" && f.method != "raw" {
		return o, fmt.Errorf("-m %s: must be pcap or raw%s", f.method, didYouMean(f.method, "pcap", "raw"))
	}
	return o, f.interfaceNames(&o)
}

// logTargets: 2.x logs to standard output unless told otherwise, 1.x to syslog,
// and a detached daemon has no standard output.
func (f *flags) logTargets(o *Options) error {
	for _, to := range f.logTo {
		switch to {
		case "stdout":
			o.ToStdout = true
		case "syslog":
			o.ToSyslog = true
		default:
			return fmt.Errorf("-l %s: must be stdout or syslog%s", to, didYouMean(to, "stdout", "syslog"))
		}
	}
	if len(f.logTo) == 0 {
		o.ToSyslog = o.Dialect == config.Dialect1x
		o.ToStdout = true
	}
	if o.Detach {
		o.ToStdout, o.ToSyslog = false, true
	}
	return nil
}

// interfaceNames reads -i: names, or one of the words of 2.x.
func (f *flags) interfaceNames(o *Options) error {
	for _, name := range f.interfaces {
		switch name {
		case "ALL", "any":
			o.Loopback = true
		case "ALL_NLO":
		case "":
			return errors.New("-i: no interface is named")
		default:
			if near := didYouMean(name, "ALL", "ALL_NLO", "any"); near != "" && strings.ToUpper(name) == name {
				return fmt.Errorf("-i %s: no such word%s", name, near)
			}
			o.Interfaces = append(o.Interfaces, name)
			continue
		}
		if len(f.interfaces) > 1 {
			return fmt.Errorf("-i %s stands alone: it names no single interface", name)
		}
	}
	return nil
}

// didYouMean is "; did you mean X?", or "" when word is like none of known.
func didYouMean(word string, known ...string) string {
	if near := config.Suggest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// seeHelp is the hint where nobody knows what was meant.
func seeHelp(cmd *cobra.Command) string {
	return "; " + cmd.CommandPath() + " --help shows what there is"
}

// flagError says as a person would what the parser has found wrong.
func flagError(cmd *cobra.Command, args []string, err error) error {
	var (
		unknown *pflag.NotExistError
		bare    *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, args, unknown)
	case errors.As(err, &bare):
		typed := "--" + bare.GetSpecifiedName()
		if bare.GetSpecifiedShortnames() != "" {
			typed = "-" + bare.GetSpecifiedName()
		}
		what, _ := pflag.UnquoteUsage(bare.GetFlag())
		return fmt.Errorf("%s wants a %s after it", typed, what)
	case errors.As(err, &invalid):
		f, cause := invalid.GetFlag(), invalid.Unwrap()
		if f.NoOptDefVal != "" && invalid.GetValue() != f.NoOptDefVal {
			return fmt.Errorf("--%s=%s: --%s takes no value", f.Name, invalid.GetValue(), f.Name)
		}
		if _, ok := errors.AsType[*strconv.NumError](cause); ok {
			return fmt.Errorf("--%s: %.40q is no number", f.Name, invalid.GetValue())
		}
		return fmt.Errorf("--%s: %w", f.Name, cause)
	}
	return fmt.Errorf("%w%s", err, seeHelp(cmd))
}

// unknownFlag says what was probably meant by a flag that there is not. A word
// such as -stpc is read as -s -t -p -c: as it was typed it says more.
func unknownFlag(cmd *cobra.Command, args []string, unknown *pflag.NotExistError) error {
	typed := "--" + unknown.GetSpecifiedName()
	if group := unknown.GetSpecifiedShortnames(); group != "" {
		typed = "-" + group
		for _, arg := range args {
			if !strings.HasPrefix(arg, "--") && strings.HasPrefix(arg, "-") && strings.HasSuffix(arg, group) {
				typed = arg
				break
			}
		}
	}
	if cmd.HasParent() {
		daemon := cmd.Root().Flags()
		if name := unknown.GetSpecifiedName(); daemon.Lookup(name) != nil || len(name) == 1 && daemon.ShorthandLookup(name) != nil {
			return fmt.Errorf("%s is an option of the daemon, and %s is a command: one of them only", typed, cmd.Name())
		}
	}
	var known, words []string // with dashes and without
	add := func(f *pflag.Flag) {
		if !f.Hidden {
			known, words = append(known, "--"+f.Name), append(words, f.Name)
		}
	}
	cmd.Flags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	if !cmd.HasParent() {
		for _, m := range oldModes {
			known, words = append(known, "-"+m), append(words, m)
		}
	}
	meant := seeHelp(cmd)
	if word := strings.TrimLeft(typed, "-"); len(word) > 1 {
		if at := slices.Index(words, config.Suggest(word, words)); at >= 0 {
			meant = "; did you mean " + known[at] + "?"
		}
	}
	return fmt.Errorf("%s is no option%s", typed, meant)
}
