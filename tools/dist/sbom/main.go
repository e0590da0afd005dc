// Command sbom writes what a Go program consists of, as a CycloneDX document in JSON:
//
//	sbom -version 1.2.3 -modules "$(go env GOMODCACHE)" -goroot "$(go env GOROOT)" [-notices FILE] PROGRAM >program.cdx.json
//
// It reads what the linker wrote into the program, so that the list is of what is really in it: the modules of packages
// that are linked, not all that go.mod names. Their licences are read from the modules' own files (licences.go). The document
// depends on nothing but the program, its modules, the version and SOURCE_DATE_EPOCH. FILE gets the texts of the licences,
// which most of them want to be given on together with the program.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

func main() {
	version := flag.String("version", "", "the program's version")
	var where places
	flag.StringVar(&where.modules, "modules", "", "the directory of downloaded modules")
	flag.StringVar(&where.goroot, "goroot", "", "the directory of Go")
	notices := flag.String("notices", "", "a file for the texts of the licences")
	flag.Parse()
	if err := run(*version, where, *notices, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "sbom: error: %v\n", err)
		os.Exit(1)
	}
}

func run(version string, where places, notices string, args []string) error {
	if version == "" || where.modules == "" || where.goroot == "" || len(args) != 1 {
		return fmt.Errorf("usage: sbom -version VERSION -modules DIRECTORY -goroot DIRECTORY [-notices FILE] PROGRAM")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	all, err := where.licences(info)
	if err != nil {
		return err
	}
	bom, err := document(version, sha256.Sum256(data), info, all)
	if err != nil {
		return err
	}
	if notices != "" {
		if err := os.WriteFile(notices, texts(path.Base(info.Path), all), 0o644); err != nil {
			return err
		}
	}
	encoder := cdx.NewBOMEncoder(os.Stdout, cdx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	encoder.SetEscapeHTML(false)
	return encoder.EncodeVersion(bom, cdx.SpecVersion1_6)
}

func document(version string, sum [sha256.Size]byte, info *debug.BuildInfo, all []licensed) (*cdx.BOM, error) {
	made, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	program := cdx.Component{
		Type:       cdx.ComponentTypeApplication,
		Name:       path.Base(info.Path),
		Version:    version,
		PackageURL: packageURL(info.Main.Path, version),
		Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "PostgreSQL"}}},
		Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Properties: settings(info),
	}
	program.BOMRef = program.PackageURL

	var parts []cdx.Component
	for i := range all {
		parts = append(parts, all[i].component())
	}
	slices.SortFunc(parts, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	refs := make([]string, len(parts))
	for i, part := range parts {
		refs[i] = part.BOMRef
	}

	bom := cdx.NewBOM()
	// A number of its own for each program, as random as its checksum (RFC 9562, version 8).
	id := slices.Clone(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	bom.Metadata = &cdx.Metadata{Timestamp: time.Unix(made, 0).UTC().Format(time.RFC3339), Component: &program}
	bom.Components = &parts
	bom.Dependencies = &[]cdx.Dependency{{Ref: program.BOMRef, Dependencies: &refs}} // which of them needs which is not known
	return bom, nil
}

func (l *licensed) component() cdx.Component {
	c := cdx.Component{
		Type: cdx.ComponentTypeLibrary, Name: l.name, Version: l.version, PackageURL: packageURL(l.name, l.version),
		Licenses: &cdx.Licenses{},
	}
	c.BOMRef = c.PackageURL
	for _, id := range l.ids {
		*c.Licenses = append(*c.Licenses, cdx.LicenseChoice{License: &cdx.License{ID: id}})
	}
	if l.sum != "" {
		c.Properties = &[]cdx.Property{{Name: "go.sum", Value: l.sum}} // a hash of a list of hashes, none that CycloneDX knows
	}
	return c
}

// settings are what the compiler was told that makes a difference.
func settings(info *debug.BuildInfo) *[]cdx.Property {
	var list []cdx.Property
	for _, s := range info.Settings {
		switch s.Key {
		case "CGO_ENABLED", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140", "-trimpath":
			list = append(list, cdx.Property{Name: "go:" + s.Key, Value: s.Value})
		}
	}
	return &list
}

// packageURL is a module's name after github.com/package-url/purl-spec.
func packageURL(module, version string) string {
	return "pkg:golang/" + module + "@" + url.PathEscape(version)
}
