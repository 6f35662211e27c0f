// Specifications as containerd writes them, made with its own builders: `specs` prints a JSON object
// with the members `pause` (a pod's sandbox), `container` (a container of a pod), `exec` (the process
// of an exec in it) and `ctr` (a plain `ctr run`).
//
// The order of options is that of the CRI plugin's sandbox and container builders and of `ctr run`.
// What the builders would take from the machine that runs them is set here: a host with cgroup v2,
// AppArmor, swap accounting, huge pages of four sizes, 16 CPUs and two memory nodes.
//
// Import paths are those of containerd 2; tests/support/host_specs.py rewrites them for 1.x, and
// chooses one of the api_*.go for functions that differ between versions.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	customopts "github.com/containerd/containerd/v2/internal/cri/opts"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	osinterface "github.com/containerd/containerd/v2/pkg/os"
	image "github.com/opencontainers/image-spec/specs-go/v1"
	runtimespec "github.com/opencontainers/runtime-spec/specs-go"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	pod       = "1f0d9a3c5b7e4a2d8c6f1e3b5a7d9c0e2f4a6b8d0c1e3f5a7b9d1c3e5f7a9b0d"
	container = "2e1c8b4d6a7f5b3e9d7a2f4c6b8e0d1f3a5b7c9e1d2f4a6b8c0e2d4f6a8b0c1e"
	parent    = "kubepods-burstable-pod7c2e.slice"
	state     = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/" + pod
	// Beyond the kernel's highest pid, so that no process of the guest has it by accident.
	sandboxPid = 4194305
)

func main() {
	unit := ":cri-containerd:"
	full := generate("k8s.io", container, containerOpts(parent+unit+container)...)
	specs := map[string]any{
		"pause":     generate("k8s.io", pod, sandboxOpts(parent+unit+pod)...),
		"container": full,
		"exec":      execProcess(*full.Process),
		"ctr":       generate("default", "demo", ctrOpts()...),
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(specs); err != nil {
		log.Fatal(err)
	}
}

func generate(namespace, id string, opts ...oci.SpecOpts) *oci.Spec {
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	spec, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: id}, opts...)
	if err != nil {
		log.Fatalf("%s: %v", id, err)
	}
	return spec
}

func podConfig() *runtime.PodSandboxConfig {
	return &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: "web-0", Uid: "7c2e", Namespace: "default"},
		Hostname:     "web-0",
		LogDirectory: "/var/log/pods/default_web-0_7c2e",
	}
}

func sandboxOpts(cgroup string) []oci.SpecOpts {
	config := podConfig()
	mounts := []runtimespec.Mount{
		bind(state+"/shm", "/dev/shm"),
		bind("/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/"+pod+"/resolv.conf", "/etc/resolv.conf"),
	}
	opts := []oci.SpecOpts{
		oci.WithoutRunMount,
		customopts.WithoutDefaultSecuritySettings,
		customopts.WithRelativeRoot("rootfs"),
		oci.WithEnv([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}),
		oci.WithRootFSReadonly(),
		oci.WithHostname(config.GetHostname()),
		oci.WithProcessCwd("/"),
		oci.WithProcessArgs("/pause"),
		oci.WithCgroup(cgroup),
		namespace(runtimespec.NetworkNamespace, "/var/run/netns/cni-5b1f0c9d-0000-4000-8000-3c6e"),
		oci.WithoutMounts("/dev/shm"),
		oci.WithMounts(mounts),
		customopts.WithSelinuxLabels("", ""),
		customopts.WithSupplementalGroups(nil),
		customopts.WithSysctls(map[string]string{
			"net.ipv4.ip_unprivileged_port_start": "0",
			"net.ipv4.ping_group_range":           "0 2147483647",
		}),
		customopts.WithDefaultSandboxShares,
		customopts.WithPodOOMScoreAdj(-998, false),
	}
	return append(opts, annotations(config, true)...)
}

func containerOpts(cgroup string) []oci.SpecOpts {
	security := &runtime.LinuxContainerSecurityContext{
		NamespaceOptions:   &runtime.NamespaceOption{Pid: runtime.NamespaceMode_CONTAINER},
		SupplementalGroups: []int64{2000},
	}
	config := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: "web"},
		Command:  []string{"sh", "-c", "exit 7"},
		Envs:     []*runtime.KeyValue{{Key: "PORT", Value: "80"}},
		Linux: &runtime.LinuxContainerConfig{
			SecurityContext: security,
			Resources: &runtime.LinuxContainerResources{
				CpuPeriod:          100000,
				CpuQuota:           200000,
				CpuShares:          512,
				CpusetCpus:         "0-15",
				CpusetMems:         "0-1",
				MemoryLimitInBytes: 128 << 20,
				OomScoreAdj:        980,
			},
		},
	}
	extra := []*runtime.Mount{
		{ContainerPath: "/etc/hostname", HostPath: state + "/hostname"},
		{ContainerPath: "/etc/hosts", HostPath: state + "/hosts"},
		{ContainerPath: "/etc/resolv.conf", HostPath: state + "/resolv.conf"},
		{ContainerPath: "/dev/shm", HostPath: state + "/shm"},
	}
	masked := []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/sys/firmware"}
	readonly := []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	opts := []oci.SpecOpts{
		oci.WithoutRunMount,
		customopts.WithoutDefaultSecuritySettings,
		customopts.WithRelativeRoot("rootfs"),
		customopts.WithProcessArgs(config, &image.ImageConfig{}),
		oci.WithDefaultPathEnv,
		oci.WithNewPrivileges,
		oci.WithEnv([]string{"HOSTNAME=web-0", "PORT=80"}),
		mounts(config, extra),
		oci.WithMaskedPaths(masked),
		oci.WithReadonlyPaths(readonly),
		customopts.WithDevices(pretended{}, config, false),
		customopts.WithCapabilities(security, nil),
		customopts.WithoutAmbientCaps,
		customopts.WithSelinuxLabels("", ""),
		customopts.WithResources(config.GetLinux().GetResources(), true, false),
		oci.WithCgroup(cgroup),
		customopts.WithOOMScoreAdj(config, false),
		podNamespaces(security),
		customopts.WithSupplementalGroups(security.GetSupplementalGroups()),
	}
	opts = append(opts, annotations(podConfig(), false)...)
	return append(opts, namespace(runtimespec.CgroupNamespace, ""),
		oci.WithApparmorProfile("cri-containerd.apparmor.d"), seccomp.WithDefaultProfile(), onHost)
}

func ctrOpts() []oci.SpecOpts {
	return []oci.SpecOpts{
		oci.WithDefaultSpec(), oci.WithDefaultUnixDevices, oci.WithRootFSPath("rootfs"),
		oci.WithDefaultPathEnv,
		oci.WithProcessArgs("sh"), oci.WithTTY, oci.WithHostname("host"),
		namespace(runtimespec.CgroupNamespace, ""),
	}
}

// onHost sets limits that WithResources sets by the controllers of the machine.
func onHost(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Linux.Resources.Memory.Swap = s.Linux.Resources.Memory.Limit
	s.Linux.Resources.HugepageLimits = nil
	for _, size := range []string{"64KB", "2MB", "32MB", "1GB"} {
		limit := runtimespec.LinuxHugepageLimit{Pagesize: size}
		s.Linux.Resources.HugepageLimits = append(s.Linux.Resources.HugepageLimits, limit)
	}
	return nil
}

// execProcess is what the CRI plugin makes of the container's own process for an exec.
func execProcess(process runtimespec.Process) runtimespec.Process {
	process.Args = []string{"sh", "-c", "exit 7"}
	return process
}

func namespace(kind runtimespec.LinuxNamespaceType, path string) oci.SpecOpts {
	return oci.WithLinuxNamespace(runtimespec.LinuxNamespace{Type: kind, Path: path})
}

func bind(source, target string) runtimespec.Mount {
	options := []string{"rbind", "ro", "nosuid", "nodev", "noexec"}
	return runtimespec.Mount{Source: source, Destination: target, Type: "bind", Options: options}
}

// pretended is a host on which every path exists.
type pretended struct{ osinterface.OS }

func (pretended) Stat(string) (os.FileInfo, error) { return nil, nil }

func (pretended) ResolveSymbolicLink(name string) (string, error) { return name, nil }
