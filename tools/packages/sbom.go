package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// program is what a bill is of.
type program struct {
	info    *buildinfo.BuildInfo
	version string
	hash    string // SHA-256 of the file, in hexadecimal
	license string
	at      time.Time
}

// The parts of CycloneDX 1.5 that are needed here.
type (
	bill struct {
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp string    `json:"timestamp"`
		Component component `json:"component"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Licenses   []licensed `json:"licenses"`
		PURL       string     `json:"purl"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	licensed struct {
		Expression string `json:"expression"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// writeBill writes the bill of materials of p, which is made of modules.
func writeBill(w io.Writer, p program, modules []module) error {
	main := component{
		Type: "application", Name: "portsentry", Version: p.version,
		Hashes:   []hash{{"SHA-256", p.hash}},
		Licenses: []licensed{{p.license}}, PURL: "pkg:generic/portsentry@" + p.version,
	}
	for _, key := range []string{"GOOS", "GOARCH", "CGO_ENABLED"} {
		if v := setting(p.info.Settings, key); v != "" {
			main.Properties = append(main.Properties, property{"build:" + key, v})
		}
	}
	main.Ref = main.PURL
	b := bill{
		Format: "CycloneDX", Spec: "1.5", Version: 1,
		Metadata:     metadata{p.at.Format(time.RFC3339), main},
		Dependencies: []dependency{{Ref: main.Ref}},
	}
	for _, m := range modules {
		c := component{
			Type: "library", Name: m.path, Version: m.version,
			Licenses: []licensed{{m.license}}, PURL: "pkg:golang/" + m.path + "@" + m.version,
		}
		c.Ref = c.PURL
		if m.sum != "" {
			// SHA-256 as of go.sum: over the names and hashes of the files of the module.
			sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(m.sum, "h1:"))
			if err != nil || len(sum) != sha256.Size {
				return fmt.Errorf("%s: %q is no sum of a module", m.path, m.sum)
			}
			c.Hashes = []hash{{"SHA-256", hex.EncodeToString(sum)}}
		}
		b.Components = append(b.Components, c)
		b.Dependencies[0].DependsOn = append(b.Dependencies[0].DependsOn, c.Ref)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(b)
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
