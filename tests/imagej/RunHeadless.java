import java.io.File;

/**
 * RunHeadless FOLDER IMAGE (COMMAND OPTIONS)...: runs macro commands without a display, with the patches by which Fiji makes ImageJ headless.
 *
 * <p>What finds commands by their names then is SciJava's; here their files are run as it does, with their options in the same place.
 */
public class RunHeadless {
    public static void main(String[] args) throws Exception {
        net.imagej.patcher.LegacyInjector.preinit(); // before a class of ImageJ is loaded
        Runner.run(args);
    }

    private static class Runner {
        static void run(String[] args) throws Exception {
            System.setProperty("plugins.dir", args[0]);
            ij.IJ.openImage(args[1]).show();
            for (int i = 2; i < args.length; i += 2) {
                File file = new File(args[0], "plugins/ForestBridge/" + args[i].replace(' ', '_') + ".ijm");
                String options = args[i + 1];
                Thread thread = new Thread(() -> {
                    ij.Macro.setOptions(options);
                    new ij.plugin.Macro_Runner().runMacroFile(file.getPath(), "");
                }, "Run$_" + args[i]);
                thread.start();
                thread.join();
                StringBuilder titles = new StringBuilder("TITLES");
                for (int id : ij.WindowManager.getIDList()) titles.append('|').append(ij.WindowManager.getImage(id).getTitle());
                System.out.println(titles);
            }
            System.exit(0);
        }
    }
}
