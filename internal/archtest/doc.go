// Package archtest holds the directions of imports that ARCHITECTURE.md draws. A byte flows one way through the program,
// and imports point back along that flow or down to the leaves; a broken arrow fails the test with the reason why the
// arrow is there. A new package fails it, too, until somebody has said in rules.go where it belongs.
//
//	rules.go       the arrows
//	check.go       the checker, over any graph
//	graph_test.go  the graph of this module, by go list
//	check_test.go  the checker finds each kind of broken arrow in made-up graphs
package archtest
