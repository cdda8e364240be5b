package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const epoch = "1790000000" // 2026-09-21T14:13:20Z

// modules are what packaging/build would say: here this test, which is a
// program of the standard library alone.
func modules(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return "std\t" + string(root)
}

func write(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := run(args, epoch, strings.NewReader(modules(t)), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func own(t *testing.T) (program, license string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program, filepath.Join("..", "..", "LICENSE")
}

func TestBill(t *testing.T) {
	program, license := own(t)
	text := write(t, "sbom", "3.1.4", program, license)
	if again := write(t, "sbom", "3.1.4", program, license); again != text {
		t.Error("another one the second time")
	}
	var b bill
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		t.Fatal(err)
	}
	main := b.Metadata.Component
	if b.Format != "CycloneDX" || b.Spec != "1.5" || b.Metadata.Timestamp != "2026-09-21T14:13:20Z" ||
		main.PURL != "pkg:generic/portsentry@3.1.4" || main.Licenses[0].Expression != "BSD-2-Clause" || len(main.Hashes[0].Content) != 64 {
		t.Errorf("%s", text)
	}
	if len(b.Components) != 1 || b.Components[0].PURL != "pkg:golang/std@"+strings.TrimPrefix(runtime.Version(), "go") ||
		!slices.Equal(b.Dependencies[0].DependsOn, []string{b.Components[0].Ref}) || b.Components[0].Licenses[0].Expression != "BSD-3-Clause" {
		t.Errorf("%+v", b.Components)
	}
}

func TestCopyright(t *testing.T) {
	program, license := own(t)
	text := write(t, "copyright", "3.1.4", program, license)
	for _, want := range []string{"the portsentry authors", "the standard library of Go", "The Go Authors", "/usr/share/common-licenses/GPL-2"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in it", want)
		}
	}
}

func TestChangelog(t *testing.T) {
	const want = "portsentry (3.1.4) unstable; urgency=medium\n\n" +
		"  * What is new is in CHANGELOG.md beside this file.\n\n" +
		" -- A B <c@d>  Mon, 21 Sep 2026 14:13:20 +0000\n"
	if got := write(t, "changelog", "3.1.4", "A B <c@d>"); got != want {
		t.Errorf("%q", got)
	}
}

func TestLicense(t *testing.T) {
	for text, want := range map[string]string{
		"/* SPDX-License-Identifier: BSD-3-Clause OR GPL-2.0-only */\n\nUnless": "BSD-3-Clause OR GPL-2.0-only",
		"   Apache License\n      Version 2.0, January 2004":                    "Apache-2.0",
		"Permission is hereby\ngranted, free of charge":                         "MIT",
		"Redistributions in binary form must\nreproduce":                        "BSD-2-Clause",
		"All rights reserved.":                                                  "",
	} {
		if got := license(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestRefused: what is not known is not passed on.
func TestRefused(t *testing.T) {
	program, license := own(t)
	strange := t.TempDir()
	if err := os.WriteFile(filepath.Join(strange, "LICENSE"), []byte("Ask first.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args               []string
		epoch, in, message string
	}{
		{[]string{"sbom", "1", program, license}, epoch, "", "nobody says where its source is"},
		{[]string{"sbom", "1", program, license}, epoch, "std\t" + t.TempDir(), "no licence file"},
		{[]string{"sbom", "1", program, license}, epoch, "std\t" + strange, "none that is known"},
		{[]string{"sbom", "1", license, license}, epoch, modules(t), "unrecognized file format"},
		{[]string{"sbom", "1", program, license}, "", modules(t), "SOURCE_DATE_EPOCH"},
		{[]string{"sbom", "1"}, epoch, "", "nothing to write"},
		{nil, epoch, "", "nothing to write"},
	} {
		var out bytes.Buffer
		err := run(tt.args, tt.epoch, strings.NewReader(tt.in), &out)
		if err == nil || !strings.Contains(err.Error(), tt.message) || out.Len() > 0 {
			t.Errorf("%q, %q: %v, %q", tt.args, tt.in, err, out.String())
		}
	}
}
