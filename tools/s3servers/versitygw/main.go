// Command versitygw is the S3 server of the tests: versitygw as its authors embed it, over a directory, with the few of its
// options that the tests use, written as its own command line has them. That command line comes with servers and
// clients for other stores, which would take a third of the time to build.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/debuglogger"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := embedgw.Config{
		RootUserAccess: os.Getenv("ROOT_ACCESS_KEY_ID"), RootUserSecret: os.Getenv("ROOT_SECRET_ACCESS_KEY"),
		// Its command line's defaults.
		MaxConnections: 250000, MaxRequests: 100000, AdminMaxConnections: 250000, AdminMaxRequests: 100000, MultipartMaxParts: 10000,
		IAMCacheTTL: 120, IAMCachePrune: 3600, LogLevel: debuglogger.LevelSilent,
	}
	var port, sidecar string
	global := flag.NewFlagSet("versitygw", flag.ContinueOnError)
	global.BoolVar(&cfg.Quiet, "quiet", false, "no banner, no line for each request")
	global.BoolVar(&cfg.KeepAlive, "keep-alive", false, "keep connections")
	global.StringVar(&port, "port", "", "host:port")
	global.StringVar(&cfg.Region, "region", "us-east-1", "")
	global.StringVar(&cfg.IAMDir, "iam-dir", "", "a directory for accounts")
	global.StringVar(&cfg.CertFile, "cert", "", "")
	global.StringVar(&cfg.KeyFile, "key", "", "")
	global.StringVar(&cfg.VirtualDomain, "virtual-domain", "", "buckets are hosts of it")
	if err := global.Parse(args); err != nil {
		return err
	}
	if global.Arg(0) != "posix" {
		return fmt.Errorf("store %q is not posix", global.Arg(0))
	}
	store := flag.NewFlagSet("posix", flag.ContinueOnError)
	store.StringVar(&sidecar, "sidecar", "", "a directory for what is kept in extended attributes otherwise")
	if err := store.Parse(global.Args()[1:]); err != nil {
		return err
	}
	root := store.Arg(0)
	if port == "" || root == "" || store.NArg() != 1 {
		return fmt.Errorf("usage: versitygw --port HOST:PORT [OPTION]... posix [--sidecar DIR] DIR")
	}
	cfg.Ports = []string{port}

	opts := posix.PosixOpts{Concurrency: 5000, IOBufferSize: 1 << 20, CopyObjectThreshold: 5 << 30, SideCarDir: sidecar}
	opts.SetNewDirPerm(0o755)
	opts.SetNewFilePerm(0o644)
	var attributes meta.MetadataStorer = meta.XattrMeta{}
	if sidecar != "" {
		car, err := meta.NewSideCar(sidecar)
		if err != nil {
			return err
		}
		attributes = car
	} else if err := (meta.XattrMeta{}).Test(root); err != nil {
		return err
	}
	files, err := posix.New(root, attributes, opts)
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, files, &cfg)
}
