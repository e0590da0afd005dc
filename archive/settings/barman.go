package settings

import (
	"strings"

	"github.com/fastrewind/fastrewind/archive/location"
)

var barmanValued = set("--cloud-provider", "--endpoint-url", "-P", "--profile", "--aws-profile", "--read-timeout",
	"--credential", "--azure-credential", "--addressing-style", "--aws-region")

// barman is barman-cloud-wal-restore [options] s3://bucket/path SERVER %f %p.
func (s *shell) barman(c simple, origin string) {
	fl := parseFlags(c.args, barmanValued)
	if provider := fl.values["--cloud-provider"]; provider != "" && provider != "aws-s3" {
		s.out.note("%s: its kind of storage, \"%s\", is not read directly", origin, provider)
		return
	}
	if fl.unknown || len(fl.operands) < 2 || !fl.operands[0].known || !fl.operands[1].known {
		s.out.note("%s has arguments that only a shell can find out", origin)
		return
	}
	address, server := fl.operands[0].text, fl.operands[1].text
	if !strings.HasPrefix(address, "s3://") {
		s.out.note("%s: its kind of storage is not read directly", origin)
		return
	}
	s3, ok := chainS3(c.vars, s.out, origin, fl.first("-P", "--profile", "--aws-profile"), fl.values["--endpoint-url"], fl.values["--aws-region"], "")
	if !ok {
		return
	}
	if style := fl.values["--addressing-style"]; style != "" && style != "auto" {
		s3.PathStyle = style == "path"
	}
	a := location.Archive{Origin: origin, S3: s3, Layout: location.Barman, Server: server}
	if hasMark(address) || !plainName(server) || parseS3(&a, strings.TrimPrefix(address, "s3://")) != nil {
		s.out.note("%s reads from an address that is not understood", origin)
		return
	}
	s.out.add(a)
}

// plainName reports whether a name can be one element of a path, and was not made by PostgreSQL.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00\r\n") && !hasMark(name)
}
