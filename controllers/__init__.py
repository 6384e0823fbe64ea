"""Controllers: apps are thin shims around pure logic; `framework` alone knows os-ken or Ryu."""
