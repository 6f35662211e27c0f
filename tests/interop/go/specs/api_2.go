//go:build containerd_2

package main

import (
	"github.com/containerd/containerd/v2/core/mount"
	criannotations "github.com/containerd/containerd/v2/internal/cri/annotations"
	customopts "github.com/containerd/containerd/v2/internal/cri/opts"
	"github.com/containerd/containerd/v2/pkg/oci"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mounts(config *runtime.ContainerConfig, extra []*runtime.Mount) oci.SpecOpts {
	return customopts.WithMounts(pretended{}, config, extra, "", nil)
}

func podNamespaces(security *runtime.LinuxContainerSecurityContext) oci.SpecOpts {
	return customopts.WithPodNamespaces(security, sandboxPid, sandboxPid, nil, nil)
}

func annotations(config *runtime.PodSandboxConfig, sandbox bool) []oci.SpecOpts {
	return criannotations.DefaultCRIAnnotations(pod, "web", "docker.io/library/busybox:latest", config, sandbox)
}

// LookupMount is asked by 2.3 for the flags of the mount below a bind mount's source.
func (pretended) LookupMount(string) (mount.Info, error) { return mount.Info{}, nil }
