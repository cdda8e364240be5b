package main

import (
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// module is a part of the program that comes from elsewhere.
type module struct {
	path, version string
	sum           string // as go.sum has it, "" for the standard library
	license       string // SPDX expression
	text          string // of its licence files
}

// std is what the standard library is called.
const std = "std"

// modulesOf are the modules of a program, the standard library first, with their
// licences. One without a licence that is known is an error: nobody may pass it on.
func modulesOf(info *buildinfo.BuildInfo, dirs map[string]string) ([]module, error) {
	all := []module{{path: std, version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		all = append(all, module{path: d.Path, version: d.Version, sum: d.Sum})
	}
	for i := range all {
		m := &all[i]
		dir, ok := dirs[m.path]
		if !ok {
			return nil, fmt.Errorf("%s: nobody says where its source is", m.path)
		}
		text, err := licenses(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.path, err)
		}
		if m.license, m.text = license(text), text; m.license == "" {
			return nil, fmt.Errorf("%s: its licence, in %s, is none that is known here", m.path, dir)
		}
	}
	return all, nil
}

// licenses is the text of the licence files in dir, one after the other.
func licenses(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var texts []string
	for _, e := range entries {
		word, _, _ := strings.Cut(strings.ToUpper(e.Name()), ".")
		if e.IsDir() || !slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"}, word) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", err
		}
		texts = append(texts, strings.TrimSpace(string(text)))
	}
	if texts == nil {
		return "", fmt.Errorf("no licence file in %s", dir)
	}
	return strings.Join(texts, "\n\n"), nil
}

// license is the SPDX expression of a licence text, "" for one that is not known.
// The order counts: a text of three clauses has the words of that of two.
func license(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if _, id, ok := strings.Cut(text, "SPDX-License-Identifier: "); ok {
		id, _, _ = strings.Cut(id, " */")
		return id
	}
	for _, l := range []struct{ id, words string }{
		{"Apache-2.0", "Apache License Version 2.0"},
		{"MIT", "Permission is hereby granted, free of charge"},
		{"MIT", "PERMISSION is hereby granted, free of charge"},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software"},
		{"BSD-3-Clause", "may be used to endorse or promote products"},
		{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	} {
		if strings.Contains(text, l.words) {
			return l.id
		}
	}
	return ""
}

// writeCopyright writes the licence of the program and those of its modules,
// which want to go wherever it goes.
func writeCopyright(w io.Writer, own string, modules []module) error {
	var b strings.Builder
	rule := strings.Repeat("-", 78)
	fmt.Fprintf(&b, "portsentry\n\n%s\n\n"+
		"The programs that it loads into the kernel (internal/bpf) may also be used under\n"+
		"the GNU General Public License, version 2, as the kernel wants it; on Debian its\n"+
		"text is in /usr/share/common-licenses/GPL-2.\n\n"+
		"The program is linked with what follows, each under the terms given.\n", strings.TrimSpace(own))
	for _, m := range modules {
		name := m.path
		if name == std {
			name = "the standard library of Go"
		}
		fmt.Fprintf(&b, "\n%s\n%s %s: %s\n\n%s\n", rule, name, m.version, m.license, m.text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// setting is a value of how the program was built, such as GOARCH.
func setting(settings []debug.BuildSetting, key string) string {
	for _, s := range settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
