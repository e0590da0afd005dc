package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fastrewind/fastrewind/internal/fault"
	"github.com/fastrewind/fastrewind/internal/rewind"
	"github.com/fastrewind/fastrewind/internal/walcheck"
)

const usageArchiveGet = `%[1]s archive get fetches one WAL file from the first archive that has a good copy:
decoded, and verified before it appears under its name or is written to standard output.

Usage:
  %[1]s archive get --wal-archive=WHERE [OPTION]... NAME [FILE|-]

NAME is a segment's (000000010000000000000001), a partial segment's, that of a history file
(00000002.history) or of a backup's label. FILE is where it goes: by default to NAME in the
current directory; - is standard output.

Options:
      --force                    replace FILE if it is there
` + usageArchiveShared

func (p *process) archiveGet(self program) *cobra.Command {
	c := &cobra.Command{Use: "get NAME [FILE|-]", Args: cobra.ArbitraryArgs}
	helps(c, p.stdout, fmt.Sprintf(usageArchiveGet, self.name))
	o := p.archiveOptions(self, c)
	var force bool
	c.Flags().BoolVar(&force, "force", false, "")
	c.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) < 1 || len(args) > 2 {
			return fault.New("expected are the name of a WAL file and a file to write, not %d arguments", len(args)).
				WithHint("Try \"%s archive get --help\" for more information.", self.name)
		}
		name, to := args[0], ""
		if len(args) == 2 {
			to = args[1]
		}
		return o.run(func(ctx context.Context, a *walcheck.Archives, rep rewind.Reporter) error {
			if to == "-" {
				got, err := a.GetTo(ctx, name, p.stdout)
				if err == nil {
					rep.Debug("%s: %d bytes, stored as %d (%s)", got.Path, got.Size, got.Stored, got.Encoding)
				}
				return err
			}
			to = walcheck.Destination(name, to)
			got, err := a.GetFile(ctx, name, to, force)
			if err == nil {
				rep.Info("wrote \"%s\", %d bytes, from %s, %d bytes (%s)", to, got.Size, got.Path, got.Stored, got.Encoding)
			}
			return err
		})
	}
	return c
}
