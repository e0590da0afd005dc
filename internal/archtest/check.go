package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Graph maps each of the module's packages to the import paths of what it imports directly. Packages outside the module
// appear only as imports.
type Graph map[string][]string

// Check returns every broken arrow in words, with the reason for the arrow; none if the graph obeys the rules.
func Check(g Graph, rules Rules) []string {
	var broken []string
	complain := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }

	layers := map[string]Layer{}
	for _, layer := range rules.Layers {
		layers[layer.Package] = layer
	}
	for _, pkg := range slices.Sorted(maps.Keys(g)) {
		layer, known := layers[relative(pkg)]
		if !known {
			complain("package %s has no place yet: add it to internal/archtest/rules.go, and to ARCHITECTURE.md", relative(pkg))
		}
		for _, imp := range g[pkg] {
			if known && inModule(imp) && !slices.Contains(layer.May, relative(imp)) {
				complain("%s imports %s: %s", relative(pkg), relative(imp), layer.Why)
			}
			for _, only := range rules.Only {
				if within(imp, only.Import) && !slices.Contains(only.In, relative(pkg)) {
					complain("%s imports %s, which is only for %v: %s", relative(pkg), imp, only.In, only.Why)
				}
			}
		}
	}
	for _, never := range rules.Never {
		for imp, path := range reachable(g, Module+"/"+never.Package) {
			for _, forbidden := range never.Imports {
				if rest, ours := strings.CutPrefix(forbidden, "./"); ours {
					forbidden = Module + "/" + rest
				}
				if within(imp, forbidden) {
					complain("%s must never import %s, but does by %s: %s", never.Package, forbidden, strings.Join(path, " -> "), never.Why)
				}
			}
		}
	}
	slices.Sort(broken)
	return broken
}

// reachable maps everything that a package imports, directly or through packages of the module, to a shortest chain of
// imports that leads there.
func reachable(g Graph, from string) map[string][]string {
	found := map[string][]string{}
	queue := [][]string{{from}}
	for len(queue) > 0 {
		path := queue[0]
		queue = queue[1:]
		for _, imp := range g[path[len(path)-1]] {
			if _, seen := found[imp]; seen {
				continue
			}
			found[imp] = append(path[:len(path):len(path)], imp)
			queue = append(queue, found[imp])
		}
	}
	return found
}

func inModule(path string) bool { return within(path, Module) }

// within reports whether path is the package or below it: github.com/jackc/pgx/v5 is within github.com/jackc/pgx.
func within(path, pkg string) bool {
	return path == pkg || strings.HasPrefix(path, pkg+"/")
}

func relative(path string) string { return strings.TrimPrefix(path, Module+"/") }
