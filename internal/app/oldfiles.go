package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"portsentry/internal/config"
)

// Files of packagers that say how to watch, where the command line does not.
const (
	modesFile    = "portsentry.modes"        // Red Hat, beside the configuration
	defaultsFile = "/etc/default/portsentry" // Debian
)

// load reads the configuration and puts what the command line says on top of
// it. from names the file that chose the modes, if one did.
func (o *Options) load() (c *config.Config, from string, err error) {
	if c, err = loadConfig(o.ConfigPath); err != nil {
		return nil, "", err
	}
	modes := o.Modes
	if modes == (config.Modes{}) {
		if modes, from, err = modesOfOld(c.Path); err != nil {
			return nil, "", err
		}
	}
	if c, err = c.WithModes(modes, o.Dialect); err != nil {
		return nil, "", err
	}
	if len(o.Interfaces) > 0 {
		c.Interfaces = o.Interfaces
	}
	return c, from, absolute(c)
}

// modesOfOld is what portsentry.modes beside the configuration says, or
// /etc/default/portsentry for the configuration in its usual place. Stealth for
// both where there is neither.
func modesOfOld(conf string) (m config.Modes, from string, err error) {
	stealth := config.Modes{TCP: config.Stealth, UDP: config.Stealth}
	if conf == "" {
		return stealth, "", nil
	}
	path := filepath.Join(filepath.Dir(conf), modesFile)
	text, err := os.ReadFile(path)
	if err == nil {
		m, err = config.ParseModes(path, text)
		return m, path, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return m, "", fmt.Errorf("how to watch: %w", err)
	}
	if conf != DefaultConfig {
		return stealth, "", nil
	}
	text, err = os.ReadFile(defaultsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return stealth, "", nil
	} else if err != nil {
		return m, "", fmt.Errorf("how to watch: %w", err)
	}
	m, none, err := config.ParseDefaults(defaultsFile, text)
	if err == nil && none {
		err = fmt.Errorf("%s: TCP_MODE and UDP_MODE are empty, so nothing is to be watched; set one, or start portsentry with a mode (portsentry --help)", defaultsFile)
	}
	return m, defaultsFile, err
}
